"""Reads a base whose weights are sharded as they are read: no process ever holds the whole model.

Until then the base has shapes alone, on torch's meta device, and what has to be known of it is asked of a twin with its
first layers and random weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, set_seed
from transformers.distributed import DistributedConfig

from pretrain_cli.config.model import Config
from pretrain_cli.model.limits import text_config, with_layers
from pretrain_cli.model.load import load_model, runs_own_code
from pretrain_cli.model.probes import FAILURES, check_causal, head_is_plain, keeps_documents_apart
from pretrain_cli.processes import world_size
from pretrain_cli.training.processes.agreement import same

TWIN_LAYERS = 2
ATTENDING = {"full_attention", "sliding_attention", "chunked_attention"}
"""Layers of which two tell what is true of all; one with a memory of another kind may stand further back."""
GROUPS = ("embed_tokens", "layers", "norm")
"""Modules that transformers' own plan shards by, beside the head."""


@dataclass(frozen=True)
class BaseShapes:
    """A base before its weights are read.

    Attributes:
        model: its shapes, on the meta device.
        keeps_apart: whether documents in a row don't see each other.
        plain_head: whether logits are the last hidden state times the head's matrix.
    """

    model: PreTrainedModel
    keeps_apart: bool
    plain_head: bool


def outline_of(config: Config, model_config: PreTrainedConfig, device: str, dtype: torch.dtype) -> BaseShapes | None:
    """The base of ``model_config`` without its weights; None where they aren't sharded, or can't be as they are read.

    Args:
        config: resolved.
        model_config: of the base.
        device: what this process computes on.
        dtype: of the weights.

    Raises:
        ModelError: the base isn't a causal language model.
    """
    asked = config.train.shard_model and world_size() > 1 and config.train.fp8 is not True
    if not asked or config.model.init != "base" or runs_own_code(model_config) or not _is_default(device):
        return None
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(model_config, dtype=dtype, trust_remote_code=False)
    except FAILURES:
        return None
    if not _is_sharded_by_layers(model):
        return None

    def ask() -> tuple[bool, bool]:
        set_seed(config.train.seed)
        few = with_layers(model_config, TWIN_LAYERS)
        twin = AutoModelForCausalLM.from_config(few, dtype=torch.float32, trust_remote_code=False)
        check_causal(twin, config.model.base)
        return keeps_documents_apart(twin), head_is_plain(twin)

    return BaseShapes(model.train(), *same(ask))


def _is_default(device: str) -> bool:
    """Whether ``device`` is of the kind on which transformers shards: the machine's accelerator, or else the CPU."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.device(device).type == (found.type if found is not None else "cpu")


def _is_sharded_by_layers(model: PreTrainedModel) -> bool:
    """Whether transformers has a plan that shards a model layer by layer, and a few layers tell what all do."""
    kinds = set(getattr(text_config(model.config), "layer_types", None) or ())
    named = all(hasattr(model.base_model, name) for name in GROUPS) and "lm_head" in (model.fsdp_plan or {})
    return named and model._supports_attention_backend and kinds <= ATTENDING


def read_sharded(location: str, precision: str, dtype: torch.dtype, trust_remote_code: bool = False) -> PreTrainedModel:
    """The base at ``location``, each process with its own share of the weights; all have to call this.

    Raises:
        ModelError: weights are missing, damaged or not finite.
    """
    shared = DistributedConfig(fsdp_size=world_size(), fsdp_mixed_precision=precision.startswith("bf16"))
    model = load_model(location, dtype=dtype, trust_remote_code=trust_remote_code, shared=shared).train()
    model.config.distributed_config = None  # with it, `save_pretrained` on rank 0 alone would wait for the others
    return model
