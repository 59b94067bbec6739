"""Remembers on this machine what compiling a model took and gave, beside the compiler's own cache.

The compiler (torch's inductor) keeps its output in a folder: a model that was compiled before starts from it in a
fraction of the time, as long as torch, the processor and all shapes are the same.
"""

from __future__ import annotations

import contextlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedConfig

from pretrain_cli.data.fingerprint import fingerprint
from pretrain_cli.errors import DataError
from pretrain_cli.model.limits import size_of
from pretrain_cli.storage import read_json, user_cache, write_json
from pretrain_cli.training.choices.machine import Machine

CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""torch's own variable: the folder of the compiler's output."""
COLD_S, GAIN = 45.0, 1.25
"""Of a model that was never compiled here: compiling took 9 to 33 s on two cores, and made steps 1.25 to 1.37 times as
fast."""
WARM_SHARE = 0.5
"""Of the seconds that compiling took, until it has once been done from the cache."""
KEPT = 200


@dataclass(frozen=True)
class CompileCost:
    """What compiling takes and gives.

    Attributes:
        first_s: seconds that the first step takes longer.
        gain: seconds of a step without it over those of one with it.
        warm: whether the compiler's cache has this model.
        known: whether this model was compiled here before.
    """

    first_s: float = COLD_S
    gain: float = GAIN
    warm: bool = False
    known: bool = False


def compile_cache() -> Path:
    """The folder of the compiler's output: torch's own variable, or ptk's in the user's cache folder."""
    return Path(os.environ.get(CACHE) or user_cache() / "compiled")


def use_compile_cache() -> None:
    """Let the compiler keep its output where a later run finds it; torch's default is a temporary folder."""
    folder = compile_cache()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            os.environ[CACHE] = str(folder)


def compile_key(config: PreTrainedConfig, machine: Machine, rows: int, sequence_length: int, *, masked: bool) -> str:
    """Names all that the compiled code follows from.

    Args:
        config: of the model.
        machine: that computes.
        rows: of a micro-batch.
        sequence_length: tokens in a row.
        masked: whether documents are kept apart in a row.
    """
    sizes = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    return fingerprint(
        {
            "torch": torch.__version__,
            "processor": [platform.machine(), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()],
            "device": machine.device,
            "precision": machine.precision,
            "model": [config.model_type, *(size_of(config, name, 0) for name in (*sizes, "vocab_size"))],
            "batch": [rows, sequence_length, masked],
        }
    )


def recall(key: str) -> CompileCost:
    """What compiling the model that ``key`` names took here; an estimate where it was never done."""
    kept = _kept(compile_cache())
    found = kept.get(key)
    if found is None:
        return CompileCost(max([COLD_S, *(entry["cold_s"] for entry in kept.values())]))
    warm_s = found.get("warm_s") or WARM_SHARE * found["cold_s"]
    return CompileCost(warm_s, found["gain"], warm=True, known=True)


def remember(key: str, first_s: float, gain: float) -> None:
    """Keep what compiling took and gave; a folder that can't be written costs nothing but the memory."""
    folder = compile_cache()
    kept = _kept(folder)
    before = kept.pop(key, None)
    if before is None:
        kept[key] = {"cold_s": round(first_s, 2), "gain": round(gain, 3)}
    else:
        kept[key] = {"cold_s": before["cold_s"], "warm_s": round(first_s, 2), "gain": round(gain, 3)}
    with contextlib.suppress(OSError):
        write_json(_file(folder), {"models": dict(list(kept.items())[-KEPT:])})


def _file(folder: Path) -> Path:
    return folder / "ptk-compiled.json"


def _kept(folder: Path) -> dict[str, dict[str, float]]:
    """Key → seconds and gain; empty where nothing usable is kept. It goes with the compiler's cache."""
    try:
        models = read_json(_file(folder))["models"]
        return {
            key: {name: float(entry[name]) for name in ("cold_s", "warm_s", "gain") if name in entry}
            for key, entry in models.items()
            if {"cold_s", "gain"} <= entry.keys() and entry["cold_s"] >= 0 and entry["gain"] > 0
        }
    except (DataError, ValueError, KeyError, TypeError, AttributeError):
        return {}
