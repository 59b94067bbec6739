"""Merges the config's layers, validates once, and remembers which layer each value came from."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from pretrain_cli.config.model import TRAINER_KEYS, Config
from pretrain_cli.errors import ConfigError

DEFAULT_FILE = "ptk.toml"
PREFIX = "PTK_"
OTHER_VARIABLES = {"PTK_ARTIFACTS", "PTK_CONFIG", "PTK_PRESET", "PTK_DEBUG"}


@dataclass(frozen=True)
class Resolved:
    """A validated config with the layer that set each value.

    Attributes:
        config: every value.
        origins: dotted key → "default", "preset scratch", "ptk.toml", "PTK_TRAIN__SEED", "--set" or "--flag".
    """

    config: Config
    origins: Mapping[str, str]


def preset_names() -> list[str]:
    """Presets that ship with the package."""
    folder = resources.files("pretrain_cli.config") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_config(
    *,
    file: Path | None = None,
    preset: str | None = None,
    assignments: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Resolved:
    """Merge defaults < preset < file < environment < ``--set`` < flags, and validate the result.

    Args:
        file: a TOML file; without one, ``ptk.toml`` of the working folder where it exists.
        preset: a name of `preset_names`; may also stand in the file as ``preset = "name"``.
        assignments: "dotted.key=value", value in TOML, or bare text.
        flags: dotted key → value; None values are flags that weren't given.
        environ: the process's environment; PTK_TRAIN__SEED=1 sets train.seed.

    Raises:
        ConfigError: a file that can't be read, an unknown key (the nearest is named), a bad value (its layer is named).
    """
    layers: list[tuple[str, dict[str, Any]]] = []
    file_values: dict[str, Any] = {}
    if file is None and Path(DEFAULT_FILE).is_file():
        file = Path(DEFAULT_FILE)
    if file is not None:
        file_values = _read_toml(file)
        preset = preset or file_values.pop("preset", None)
        file_values.pop("preset", None)
    if preset:
        layers.append((f"preset {preset}", _read_preset(preset)))
    if file is not None:
        layers.append((str(file), file_values))
    layers.extend(_environment_layers(os.environ if environ is None else environ))
    layers.extend(("--set", _nested(*_parse_assignment(text))) for text in assignments)
    for key, value in (flags or {}).items():
        if value is not None:
            layers.append((f"--{key.rpartition('.')[2].replace('_', '-')}", _nested(key, value)))

    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, values in layers:
        _check_keys(values, name)
        for key, value in _leaves(values):
            origins[key] = name
            _put(merged, key, value)
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        raise _explain(error, origins) from error
    for key in [key for key in origins if key.startswith("trainer.")]:  # one value for `config show`
        origins["trainer"] = origins[key]
    return Resolved(config, {key: origins.get(key, "default") for key, _ in flatten(config)})


def known_keys() -> list[str]:
    """Every dotted key, in the order of declaration."""
    return [key for key, _ in flatten(Config())]


def flatten(config: Config) -> list[tuple[str, Any]]:
    """(dotted key, value) of every field, in the order of declaration."""
    pairs: list[tuple[str, Any]] = []
    for section in Config.model_fields:
        value = getattr(config, section)
        if isinstance(value, BaseModel):
            pairs.extend((f"{section}.{field}", getattr(value, field)) for field in type(value).model_fields)
        else:
            pairs.append((section, value))
    return pairs


def to_toml(config: Config) -> str:
    """The whole config as TOML that `load_config` reads back to the same values. Unset budgets are left out."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def changed(config: Config, **values: Any) -> Config:
    """A copy with other values, validated: ``changed(config, train__seed=1)``."""
    merged = config.model_dump()
    for key, value in values.items():
        _put(merged, key.replace("__", "."), value)
    return Config.model_validate(merged)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"The config {path} can't be read: {error.strerror}.", "Give its path with --config FILE."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The config {path} isn't UTF-8: byte {error.start}.", "Save it as UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"The config {path} isn't valid TOML: {error}.", 'Text values need quotes: key = "value".'
        ) from error


def _read_preset(name: str) -> dict[str, Any]:
    if name not in preset_names():
        raise ConfigError(f"No preset '{name}'.", f"Presets: {', '.join(preset_names())}.")
    text = (resources.files("pretrain_cli.config") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _environment_layers(environ: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, text in sorted(environ.items()):
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES:
            continue
        if "__" in name:
            key = name.removeprefix(PREFIX).lower().replace("__", ".")
            yield name, _nested(key, _parse_value(text))
        elif meant := _meant_variable(name):
            raise ConfigError(f"The variable {name} sets nothing.", f"Did you mean {meant}?")


def _meant_variable(name: str) -> str:
    """The variable of a key that ``name`` is a slip of, as PTK_TRAIN_SEED is of PTK_TRAIN__SEED; "" where it's ours."""
    keys = {f"{PREFIX}{key.replace('.', '_')}".upper(): key for key in known_keys()}
    nearest = difflib.get_close_matches(name, [*keys, *OTHER_VARIABLES], n=1, cutoff=0.9)
    if not nearest:
        return ""
    key = keys.get(nearest[0])
    return f"{PREFIX}{key.replace('.', '__')}".upper() if key else nearest[0]


def _parse_assignment(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: no '=' in it.", "Write --set section.key=value.")
    return key.strip(), _parse_value(value.strip())


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _nested(key: str, value: Any) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    _put(nested, key, value)
    return nested


def _put(target: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        target = target.setdefault(section, {})
    target[last] = value


def _leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for section, table in values.items():
        if isinstance(table, Mapping):
            yield from ((f"{section}.{key}", value) for key, value in table.items())
        else:
            yield section, table


def _check_keys(values: Mapping[str, Any], layer: str) -> None:
    known = known_keys()
    for key, value in _leaves(values):
        if own := TRAINER_KEYS.get(key.removeprefix("trainer.")) if key.startswith("trainer.") else None:
            raise ConfigError(f"{layer}: '{key}' would have no effect: ptk sets it by '{own}'.", f"Set {own}.")
        if key in known or key.startswith("trainer."):
            continue
        if key in Config.model_fields:
            raise ConfigError(
                f"{layer}: '{key}' is a section, not a key (it was given {value!r}).",
                f"Write [{key}] with keys under it.",
            )
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5) or [
            name for name in known if name.endswith(f".{key}")
        ]
        hint = f"Did you mean '{nearest[0]}'?" if nearest else "List all keys with: ptk config keys"
        raise ConfigError(f"{layer}: unknown key '{key}'.", hint)


def _explain(error: ValidationError, origins: Mapping[str, str]) -> ConfigError:
    """The first failure, in words: key, value, layer, and what is allowed."""
    failures = error.errors()
    location = failures[0]["loc"]
    key = ".".join(str(part) for part in location[:2])
    same = [failure for failure in failures if failure["loc"][:2] == location[:2]]
    allowed = "; or ".join(dict.fromkeys(map(_phrase, same)))
    layer = origins.get(key, "config")
    return ConfigError(f"{layer}: {key} = {failures[0]['input']!r}: {allowed}.", f"See: ptk config keys {key}")


def _phrase(failure: Any) -> str:
    inner = failure["loc"][-1]
    own = {
        "missing": f"'{inner}' is missing in it",
        "extra_forbidden": f"there is no '{inner}' in it",
        "tuple_type": f'should be a list: ["{failure["input"]}"]',
        "dict_type": "should be a table: {key = value}",
        "int_parsing": "should be a whole number",
        "int_from_float": "should be a whole number",
        "float_parsing": "should be a number",
        "bool_parsing": "should be true or false",
        "string_pattern_mismatch": "isn't written as it should be",
    }
    text: str = failure["msg"]
    return own.get(failure["type"], text.replace("Input should be", "should be").replace("Value error, ", ""))
