"""Says what an optimizer keeps for each weight: the same for the plan, for training's choices and for checkpoints."""

from __future__ import annotations

from pretrain_cli.optional import to_install

STATE_BYTES = {
    "lion_8bit": 1.0,
    "rmsprop_bnb_8bit": 1.0,
    "ademamix_8bit": 3.0,
    "ademamix": 12.0,
    "4bit": 1.0,
    "8bit": 2.0,
    "lion": 4.0,
    "rmsprop": 4.0,
    "adafactor": 0.1,
    "adagrad": 4.0,
    "sgd": 0.0,
}
"""Bytes a weight by a word in the optimizer's name, the first that fits; AdamW's two fp32 moments where none does."""
PROJECTED, PROJECTION = ("galore", "apollo"), 128
"""Optimizers that keep AdamW's moments of a projection of each matrix (arXiv 2403.03507, 2412.05270), and its rank in
transformers."""
ADAMW_BYTES = 8.0
MUON_BYTES = 4.0
"""Of a matrix under Muon: one momentum."""


def state_bytes(optimizer: str) -> float:
    """Bytes that ``optimizer``, by its name in transformers, keeps for each weight it moves."""
    return next((size for word, size in STATE_BYTES.items() if word in optimizer), ADAMW_BYTES)


def projected_bytes(width: int) -> float:
    """What they keep for each weight of a matrix ``width`` wide: two moments of the projection, and the projection."""
    return min(ADAMW_BYTES, 3 * 4.0 * PROJECTION / width)


def library_of(optimizer: str) -> tuple[str, str]:
    """(the package that ``optimizer`` comes in, how to install it); empty where transformers or torch has it."""
    if optimizer.startswith(PROJECTED):
        name = "galore_torch" if "galore" in optimizer else "apollo_torch"
        return name, to_install(name.replace("_", "-"))
    if "torch_8bit" in optimizer or "torch_4bit" in optimizer:
        return "torchao", to_install("torchao")
    if any(word in optimizer for word in ("8bit", "bnb", "paged", "lion", "ademamix")):
        return "bitsandbytes", to_install(extra="lora")
    return "", ""
