"""Checks an adapter that somebody else made, before anything is computed or allocated for it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from pretrain_cli.artifacts import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from pretrain_cli.errors import DataError, ModelError, first_line
from pretrain_cli.formatting import count_of
from pretrain_cli.storage import read_json

USE_WHOLE = "Use a complete LoRA adapter with the base that it was trained beside."
LIST_NAMES = f'Write the names of the layers into {ADAPTER_CONFIG} as a list: ["q_proj", "v_proj"].'
NAME = re.compile(r"[\w.-]+")
PATTERN = re.compile(r"(?:[\w-]|\\?\.|\^|\$|\||\((?:\?:)?|\)|(?:\.|\\d|\[0-9\])[*+]\??)*")
"""Letters, dots, alternatives, and repeats of a single character: no group is repeated."""
REPEAT = re.compile(r"(?:\.|\\d|\[0-9\])[*+]")
LONGEST_NAME = 100
MOST_ATTEMPTS = 10**6
"""Ways of a pattern through a module's name of 100 characters, at most: all names of a model take seconds then."""
BEGINNING = re.compile(r"gaussian|eva|orthogonal|olora|corda|mica|loftq|pissa(_niter_\d{1,2})?")
"""Ways in which PEFT begins LoRA's matrices."""
MOST_ROUNDS = 20
UNSUPPORTED = ("layer_replication", "megatron_config", "alora_invocation_tokens", "arrow_config")
"""Settings that change what the base is, or import other packages."""


def check_adapter_config(folder: Path) -> None:
    """Refuse settings that PEFT would compute with without end, or that can't be merged.

    Raises:
        ModelError: the adapter isn't LoRA, or a pattern of module names is more than a simple one.
    """
    file = folder / ADAPTER_CONFIG
    try:
        settings = read_json(file)
    except DataError as error:
        raise ModelError(error.message, USE_WHOLE) from error
    if settings.get("peft_type") != "LORA":
        raise ModelError(f"{file}: peft_type is {_short(settings.get('peft_type'))}; only LORA is merged.", USE_WHOLE)
    for key in UNSUPPORTED:
        if settings.get(key):
            raise ModelError(f"{file} sets {key}: such an adapter can't be merged.", USE_WHOLE)
    _check_beginning(file, settings)
    for key in ("target_modules", "exclude_modules", "layers_pattern", "modules_to_save", "target_parameters"):
        value = settings.get(key)
        if isinstance(value, str):
            _check_patterns(file, key, [value])
        else:
            _check_names(file, key, [] if value is None else value)
    for key in ("rank_pattern", "alpha_pattern"):
        table = settings.get(key) or {}
        _check_patterns(file, key, table if isinstance(table, Mapping) else [table])


def _check_beginning(file: Path, settings: Mapping[str, object]) -> None:
    """What the matrices began as: some ways take the base apart again, in as many rounds as the file says."""
    way, loftq = settings.get("init_lora_weights", True), settings.get("loftq_config") or {}
    rounds = loftq.get("loftq_iter", 1) if isinstance(loftq, Mapping) else None
    if not (way is None or isinstance(way, bool) or (isinstance(way, str) and BEGINNING.fullmatch(way))):
        raise ModelError(f"{file} sets init_lora_weights to {_short(way)}: it can't be merged.", USE_WHOLE)
    if not isinstance(rounds, int) or rounds > MOST_ROUNDS:
        raise ModelError(f"{file} sets loftq_config to {_short(loftq)}: it can't be merged.", USE_WHOLE)


def _check_names(file: Path, key: str, names: object) -> None:
    listed = names if isinstance(names, list) else [names]
    for name in listed:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ModelError(f"{file}: {key} has {_short(name)}, which isn't the name of a layer.", LIST_NAMES)


def _check_patterns(file: Path, key: str, patterns: Iterable[object]) -> None:
    for pattern in patterns:
        if not isinstance(pattern, str) or not is_simple_pattern(pattern):
            raise ModelError(
                f"{file}: {key} has the pattern {_short(pattern)}, which may take for ever to compare.", LIST_NAMES
            )


def is_simple_pattern(pattern: str) -> bool:
    """Whether the regular expression ``pattern`` is compared with any module's name in well under a second."""
    if len(pattern) > 10_000 or not PATTERN.fullmatch(pattern):
        return False
    repeats = len(REPEAT.findall(pattern))
    attempts, open_groups = math.comb(LONGEST_NAME + repeats, repeats), [1]
    for character in pattern:
        if character == "(":
            open_groups.append(1)
        elif character == "|":
            open_groups[-1] += 1
        elif character == ")":
            if len(open_groups) == 1:
                return False
            attempts *= open_groups.pop()
        if attempts > MOST_ATTEMPTS:
            return False
    return len(open_groups) == 1


def check_adapter_weights(folder: Path, model: PreTrainedModel) -> None:
    """Check on a copy of ``model`` without memory that the weights in ``folder`` are those that its settings describe.

    Raises:
        ModelError: a matrix is missing, left over, or of another shape.
    """
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import AutoModelForCausalLM

    weights = folder / ADAPTER_WEIGHTS
    try:
        settings = LoraConfig.from_pretrained(str(folder))
        settings.init_lora_weights = True  # the others look at the base's weights
        settings.inference_mode = True
        with torch.device("meta"):
            plain = AutoModelForCausalLM.from_config(model.config, trust_remote_code=False)
            skeleton = PeftModel(plain, settings, low_cpu_mem_usage=True)
        mapping = getattr(model, "_checkpoint_conversion_mapping", {})
        found: Any = skeleton.load_adapter(
            str(folder), "default", torch_device="cpu", low_cpu_mem_usage=True, key_mapping=mapping
        )
    except Exception as error:  # PEFT raises many kinds of errors
        raise ModelError(f"{weights} isn't what {ADAPTER_CONFIG} describes: {_reason(error)}.", USE_WHOLE) from error
    if found.missing_keys:
        raise ModelError(
            f"{weights} lacks {count_of(len(found.missing_keys), 'matrix', 'matrices')} that {ADAPTER_CONFIG} "
            f"describes, first {_short(found.missing_keys[0])}.",
            USE_WHOLE,
        )
    if found.unexpected_keys:
        raise ModelError(
            f"{weights} has {count_of(len(found.unexpected_keys), 'tensor')} that {ADAPTER_CONFIG} doesn't "
            f"describe, first {_short(found.unexpected_keys[0])}.",
            USE_WHOLE,
        )


def _reason(error: Exception) -> str:
    """The error's first line, and where it is a heading ("Error(s) in loading state_dict …:") the line after it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _cut(lines[1].rstrip(".")) if len(lines) > 1 and lines[0].endswith(":") else _cut(first_line(error))


def _short(value: object) -> str:
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]}…"
