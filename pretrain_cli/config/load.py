"""Merges the layers of the config, validates the result, and remembers where each value came from."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, cast

import tomli_w
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pretrain_cli.addresses import redact_all
from pretrain_cli.config.model import TRAINER_KEYS, Config
from pretrain_cli.errors import ConfigError
from pretrain_cli.formatting import exact, shortened
from pretrain_cli.storage import parse_toml, read_bounded

DEFAULT_FILE = "ptk.toml"
PREFIX = "PTK_"
MOST_CONFIG_BYTES = 10_000_000
TRUST, TASKS = "model.trust_remote_code", "evaluate.tasks"
OTHER_VARIABLES = {"PTK_ARTIFACTS", "PTK_CONFIG", "PTK_PRESET", "PTK_DEBUG"}


@dataclass(frozen=True)
class Resolved:
    """A validated config, with the layer that set each value.

    Attributes:
        config: all values.
        origins: dotted key → "default", "preset scratch", "ptk.toml", "PTK_TRAIN__SEED", "--set" or "--flag".
        notes: what has to be said about trust that wasn't given on the command line.
    """

    config: Config
    origins: Mapping[str, str]
    notes: tuple[str, ...] = ()


def preset_names() -> list[str]:
    """The presets that ship with the package."""
    folder = resources.files("pretrain_cli.config") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_config(
    *,
    file: Path | None = None,
    preset: str | None = None,
    assignments: Sequence[str] = (),
    flags: Mapping[str, object] | None = None,
    keywords: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Resolved:
    """Merge defaults < preset < file < environment < ``--set`` < flags < keywords, and validate the result.

    Args:
        file: a TOML file. Default: ``ptk.toml`` in the working folder, if it exists.
        preset: one of `preset_names`. A file can also name it, as ``preset = "name"``.
        assignments: "dotted.key=value", with the value in TOML or as bare text.
        flags: dotted key → value; None for a flag that wasn't given.
        keywords: dotted key → value, from Python.
        environ: the environment variables; PTK_TRAIN__SEED=1 sets train.seed.

    Raises:
        ConfigError: a file can't be read, a key is unknown (the message names the nearest one), or a value is wrong
            (the message names its layer).
    """
    layers: list[_Layer] = []
    file_values: dict[str, object] = {}
    if file is None and Path(DEFAULT_FILE).is_file():
        file = Path(DEFAULT_FILE)
    if file is not None:
        file_values = _read_toml(file)
        named = file_values.pop("preset", None)
        preset = preset or (str(named) if named else None)
    if preset:
        layers.append(_Layer(f"preset {preset}", _read_preset(preset), trusted=False))
    if file is not None:
        layers.append(_Layer(str(file), file_values, trusted=str(file) == DEFAULT_FILE))
    layers.extend(_environment_layers(os.environ if environ is None else environ))
    layers.extend(_Layer("--set", _nested(*_parse_assignment(text))) for text in assignments)
    for key, value in (flags or {}).items():
        if value is not None:
            layers.append(_Layer(f"--{key.rpartition('.')[2].replace('_', '-')}", _nested(key, value)))
    layers.extend(_Layer(f"{key.rpartition('.')[2]}=", _nested(key, value)) for key, value in (keywords or {}).items())

    untrusted = _take_trust_away(layers)
    merged: dict[str, object] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        _check_keys(layer.values, layer.name)
        for key, value in _leaves(layer.values):
            origins[key] = layer.name
            _put(merged, key, value)
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        raise _explain(error, origins) from error
    for key in [key for key in origins if key.startswith("trainer.")]:  # one value for `config show`
        origins["trainer"] = origins[key]
    all_origins = {key: origins.get(key, "default") for key, _ in flatten(config)}
    return Resolved(config, all_origins, _about_trust(config, all_origins[TRUST], untrusted))


@dataclass(frozen=True)
class _Layer:
    """Values by section, where they come from, and whether they may let a base's own code run."""

    name: str
    values: dict[str, object]
    trusted: bool = True


def _take_trust_away(layers: Sequence[_Layer]) -> list[str]:
    """Remove what lets code run from presets and from files other than the working folder's ptk.toml.

    That is the trust in a base's own code, and folders of lm-eval's tasks, which bring code along. A run's config.toml,
    or one that came with a download, would otherwise decide what runs on this machine.

    Returns:
        A sentence for each value that has no effect.
    """
    lost = []
    for layer in layers:
        if layer.trusted:
            continue
        if any(value is not False for value in _take(layer.values, TRUST)):
            instead = f"If you trust the base's code: --set {TRUST}=true"
            lost.append(f"{layer.name} sets {TRUST}, which has no effect there. {instead}")
        for tasks in _take(layer.values, TASKS):
            named = [task for task in tasks if not Path(str(task)).is_dir()] if isinstance(tasks, list) else tasks
            if named != tasks:
                told = "whose code doesn't run from there: --tasks FOLDER does."
                lost.append(f"{layer.name} names folders in {TASKS}, {told}")
            _put(layer.values, TASKS, named)
    return lost


def _take(values: dict[str, object], key: str) -> list[object]:
    """Remove a dotted key; its values, since TOML has two ways to spell a key with a dot in it."""
    section, _, name = key.partition(".")
    table = values.get(section)
    places = [(values, key), *([(table, name)] if isinstance(table, dict) else [])]
    return [place.pop(each) for place, each in places if each in place]


def _about_trust(config: Config, origin: str, untrusted: Sequence[str]) -> tuple[str, ...]:
    if config.model.trust_remote_code:
        typed = origin.startswith("--") or origin.endswith("=")
        return () if typed else (f"{origin} lets a base's own code run ({TRUST} = true).",)
    return tuple(untrusted)


def known_keys() -> list[str]:
    """All dotted keys, in the order of declaration."""
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
    """The whole config as TOML that `load_config` reads back. Keys that aren't set are left out.

    The values are the same, except that addresses are without user, password and query, and that bytes of file names
    that aren't UTF-8 are spelled ``\\xe9``: TOML has no way to say them.
    """
    text = tomli_w.dumps(redact_all(config.model_dump(mode="json", exclude_none=True)))
    return re.sub("[\udc80-\udcff]", lambda byte: f"\\\\x{ord(byte[0]) - 0xDC00:02x}", text)


def given(config: Config) -> set[str]:
    """The dotted keys that a layer has set, whatever their values are."""
    keys: set[str] = set()
    for section in config.model_fields_set:
        value = getattr(config, section)
        keys |= (
            {f"{section}.{field}" for field in value.model_fields_set} if isinstance(value, BaseModel) else {section}
        )
    return keys


def changed(config: Config, **values: object) -> Config:
    """A validated copy with other values, which count as given: ``changed(config, train__seed=1)``.

    Raises:
        ConfigError: a value isn't valid, such as a rate that follows from an extreme one.
    """
    return _changed(config, {key.replace("__", ".", 1): value for key, value in values.items()}, "the other settings")


def _changed(config: Config, values: Mapping[str, object], layer: str) -> Config:
    merged = config.model_dump(exclude_unset=True)
    for key, value in values.items():
        _put(merged, key, value)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise _explain(error, {key: layer.format(key.rpartition(".")[2]) for key in values}) from error


def with_keywords(config: Config, keywords: Mapping[str, object]) -> Resolved:
    """``config`` with other values, which Python's caller has named by dotted key.

    Raises:
        ConfigError: a value isn't valid.
    """
    return Resolved(_changed(config, keywords, "{}="), {})


def _read_toml(path: Path) -> dict[str, object]:
    try:
        return parse_toml(read_bounded(path, MOST_CONFIG_BYTES))
    except OSError as error:
        raise ConfigError(
            f"The config file {path} can't be read: {error.strerror}.", "Check the path given with --config."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"The config file {path} isn't UTF-8 (at byte {exact(error.start)}).", "Save it as UTF-8."
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"The config file {path} isn't valid TOML: {error}.", 'Put text values in quotes: key = "value".'
        ) from error


def _read_preset(name: str) -> dict[str, object]:
    if name not in preset_names():
        raise ConfigError(f"There is no preset '{name}'.", f"Presets: {', '.join(preset_names())}.")
    text = (resources.files("pretrain_cli.config") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    return parse_toml(text)


def _environment_layers(environ: Mapping[str, str]) -> Iterator[_Layer]:
    for name, text in sorted(environ.items()):
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES:
            continue
        if "__" in name:
            key = name.removeprefix(PREFIX).lower().replace("__", ".")
            yield _Layer(name, _nested(key, _parse_value(text)))
        elif meant := _meant_variable(name):
            raise ConfigError(f"The environment variable {name} has no effect.", f"Did you mean {meant}?")


def _meant_variable(name: str) -> str:
    """The variable that ``name`` misspells, as PTK_TRAIN_SEED misspells PTK_TRAIN__SEED; empty if none is close."""
    keys = {f"{PREFIX}{key.replace('.', '_')}".upper(): key for key in known_keys()}
    nearest = difflib.get_close_matches(name, [*keys, *OTHER_VARIABLES], n=1, cutoff=0.9)
    if not nearest:
        return ""
    key = keys.get(nearest[0])
    return f"{PREFIX}{key.replace('.', '__')}".upper() if key else nearest[0]


def _parse_assignment(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: there is no '=' in it.", "Write it as --set section.key=value.")
    return key.strip(), _parse_value(value.strip())


def _parse_value(text: str) -> object:
    try:
        return parse_toml(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _nested(key: str, value: object) -> dict[str, object]:
    nested: dict[str, object] = {}
    _put(nested, key, value)
    return nested


def _put(target: dict[str, object], key: str, value: object) -> None:
    *sections, last = key.split(".")
    for section in sections:
        target = cast(dict[str, object], target.setdefault(section, {}))
    target[last] = value


def _leaves(values: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for section, table in values.items():
        if isinstance(table, Mapping):
            yield from ((f"{section}.{key}", value) for key, value in table.items())
        else:
            yield section, table


def _check_keys(values: Mapping[str, object], layer: str) -> None:
    known = known_keys()
    for key, value in _leaves(values):
        if own := TRAINER_KEYS.get(key.removeprefix("trainer.")) if key.startswith("trainer.") else None:
            raise ConfigError(
                f"{layer}: '{key}' would have no effect, because ptk sets it from '{own}'.", f"Set {own} instead."
            )
        if key in known or key.startswith("trainer."):
            continue
        if key in Config.model_fields:
            raise ConfigError(
                f"{layer}: '{key}' is a section, not a key, but it was set to {value!r}.",
                f"Write [{key}] and put its keys under it.",
            )
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5) or [
            name for name in known if name.endswith(f".{key}")
        ]
        hint = f"Did you mean '{nearest[0]}'?" if nearest else "List all keys: ptk config keys"
        raise ConfigError(f"{layer}: unknown key '{key}'.", hint)


def _explain(error: ValidationError, origins: Mapping[str, str]) -> ConfigError:
    """The first failure in words: key, value, layer, and what is allowed."""
    failures = error.errors()
    location = failures[0]["loc"]
    key = ".".join(str(part) for part in location[:2])
    same = [failure for failure in failures if failure["loc"][:2] == location[:2]]
    phrases = list(dict.fromkeys(map(_phrase, same)))
    value, layer = failures[0]["input"], origins.get(key, "the config")
    shown = str(value).lower() if isinstance(value, bool) else shortened(repr(value))
    if all(phrase.startswith("must be ") for phrase in phrases):  # one of them is enough
        allowed = " or ".join(phrase.removeprefix("must be ") for phrase in phrases)
        message = f"{key} must be {allowed}, not {shown} (set by {layer})."
    else:
        message = f"{key} = {shown} (set by {layer}): {'; '.join(phrases)}."
    return ConfigError(message, f"See: ptk config keys {key}")


def _phrase(failure: ErrorDetails) -> str:
    inner = failure["loc"][-1]
    bounds = failure.get("ctx", {})
    own = {
        "missing": f"'{inner}' is missing",
        "extra_forbidden": f"'{inner}' is not one of its keys",
        "tuple_type": f'must be a list, such as ["{shortened(str(failure["input"]))}"]',
        "dict_type": "must be a table, such as {key = value}",
        "int_parsing": "must be a whole number",
        "int_parsing_size": "must be a smaller whole number",
        "int_from_float": "must be a whole number",
        "float_parsing": "must be a number",
        "string_type": "must be text",
        "bool_parsing": "must be true or false",
        "greater_than_equal": f"must be at least {_number(bounds.get('ge'))}",
        "less_than_equal": f"must be at most {_number(bounds.get('le'))}",
        "greater_than": f"must be greater than {_number(bounds.get('gt'))}",
        "less_than": f"must be less than {_number(bounds.get('lt'))}",
        "string_pattern_mismatch": "has the wrong form",
    }
    text: str = failure["msg"]
    return own.get(failure["type"], text.replace("Input should be", "must be").replace("Value error, ", ""))


def _number(bound: object) -> str:
    """A bound with separators: "1,048,576"."""
    return f"{bound:,}" if isinstance(bound, (int, float)) else ""
