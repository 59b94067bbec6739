"""Opens a model with transformers, so that whatever is wrong with it is said before it is used."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.distributed import DistributedConfig

from pretrain_cli.errors import ModelError, OutOfMemoryError, PtkError, first_line
from pretrain_cli.formatting import count_of, exact
from pretrain_cli.memory import is_out_of_memory
from pretrain_cli.model.config_checks import MOST_PACKED, check_settings
from pretrain_cli.model.files import USE_ANOTHER, check_finite, check_vocabulary, check_weight_files, weight_shapes
from pretrain_cli.model.pickles import files_of, foreign, pickle_notes_ignored
from pretrain_cli.published import check_published
from pretrain_cli.quiet import quiet_libraries

MOST_DESCRIBED, SMALL_MODEL = 2, 10_000_000
"""Parameters that a config may describe: so many times those in its files (a head may be the embedding), and more."""
TOO_LARGE = ("Storage size calculation overflowed", "Overflow when unpacking long", "integer multiplication overflow")
"""What torch says of a tensor whose bytes can't even be counted."""


def load_model(
    folder: Path | str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str = torch.float32,
    tokenizer_size: int | None = None,
    trust_remote_code: bool = False,
    four_bit: torch.dtype | None = None,
    shared: DistributedConfig | None = None,
) -> PreTrainedModel:
    """The causal language model in ``folder`` (or of a Hub id), in evaluation mode, its weights checked.

    Args:
        folder: what ``from_pretrained`` takes.
        device: where the weights go.
        dtype: of the weights; "auto": as they are saved.
        tokenizer_size: ids that the tokenizer can make; the embedding must have a row for each.
        trust_remote_code: run model code that comes with the folder.
        four_bit: round the linear layers but the head to 4 bits (NF4), and compute in this type; None: don't.
        shared: over which processes the weights are sharded as they are read: each reads its own share alone, and all
            have to call this; None: they aren't.

    Raises:
        ModelError: no weights, truncated or incomplete weights, non-finite values, remote code, or an embedding
            smaller than the tokenizer.
    """
    quiet_libraries()
    name = str(folder)
    if Path(folder).is_dir():
        check_published(Path(folder), tensors=True)
        _check_room(check_weight_files(Path(folder)), name, trust_remote_code)
    else:
        read_model_config(name, trust_remote_code)
    packing = _four_bit(four_bit, device) if four_bit is not None else {}
    placing = packing if shared is None else {"distributed_config": shared}
    try:
        with pickle_notes_ignored():
            model, report = AutoModelForCausalLM.from_pretrained(
                name, dtype=dtype, trust_remote_code=trust_remote_code, output_loading_info=True, **placing
            )
    except (pickle.UnpicklingError, EOFError) as error:
        raise ModelError(
            f"{_foreign_weights(Path(folder)) or f'The weights of {name} are a Python pickle: they were not loaded'}.",
            "Use a copy of the model whose weights are in safetensors files.",
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a stranger's config makes transformers raise nearly anything
        raise _explain(name, error) from error
    missing = sorted(report.get("missing_keys", ()))
    if missing:
        raise ModelError(
            f"The weights in {name} lack {count_of(len(missing), 'tensor')}, first {missing[0]}.", USE_ANOTHER
        )
    check_finite({key: _own_part(tensor) for key, tensor in model.state_dict().items()}, name)
    if tokenizer_size is not None:
        check_vocabulary(tokenizer_size, embedding_rows(model), name)
    if packing:
        _keep_scales(model)
    if not placing:
        model.to(torch.device(device))
    model.eval()
    return model


def _check_room(files: list[Path], name: str, trust_remote_code: bool) -> None:
    """Check that config.json describes about as many weights as ``files`` hold: transformers allocates missing ones."""
    held = sum(math.prod(shape) for shape in weight_shapes(files).values())
    try:
        config = read_model_config(name, trust_remote_code)
        if not held or runs_own_code(config):
            return
        with torch.device("meta"):
            described = AutoModelForCausalLM.from_config(config, trust_remote_code=False).num_parameters()
    except Exception:  # what is wrong with it is told where it is opened
        return
    if described > held * (MOST_PACKED if hasattr(config, "quantization_config") else MOST_DESCRIBED) + SMALL_MODEL:
        told = f"it describes a model of {exact(described)} parameters, and the weights are {exact(held)} numbers"
        raise ModelError(f"config.json in {name} doesn't fit the weights: {told}.", USE_ANOTHER)


def _own_part(weight: torch.Tensor) -> torch.Tensor:
    """A weight, or this process's share of it."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def _four_bit(compute: torch.dtype, device: str | torch.device) -> dict[str, Any]:
    """What `from_pretrained` takes to round weights to 4 bits as they arrive (Dettmers et al. 2023, 2305.14314)."""
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )
    return {"quantization_config": settings, "device_map": {"": str(device)}}


def _keep_scales(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from packing 4-bit weights anew for a CPU with AVX512-BF16 where the model isn't in training.

    It would round their scales to bf16, so that a run that validates differs from one that doesn't, and it fails where
    a row is shorter than a block.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _foreign_weights(folder: Path) -> str:
    return next(filter(None, map(foreign, files_of(folder) if folder.is_dir() else ())), "")


def embedding_rows(model: PreTrainedModel) -> int:
    """Ids that the model has an embedding for."""
    return int(model.get_input_embeddings().weight.shape[0])


def read_model_config(location: str, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The transformers config at ``location``, a folder or Hub id.

    Raises:
        ModelError: there is none, or it needs its own code, or code from the Hub.
    """
    try:
        check_settings(PreTrainedConfig.get_config_dict(location)[0], location)
        return AutoConfig.from_pretrained(location, trust_remote_code=trust_remote_code)
    except ModelError:
        raise
    except Exception as error:  # as above
        raise _explain(location, error) from error


def random_model(config: PreTrainedConfig, name: str) -> PreTrainedModel:
    """A model with random weights of the config of base ``name``; its own code runs only if that has been trusted.

    Raises:
        ModelError: its settings make no model.
    """
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=runs_own_code(config))
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise _explain(name, error) from error
    return model


def runs_own_code(config: PreTrainedConfig) -> bool:
    """Whether the config's class came with its model, and not with transformers: its code was trusted and has run."""
    return type(config).__module__.startswith("transformers_modules")


def _explain(name: str, error: Exception) -> PtkError:
    text = first_line(error)
    if is_out_of_memory(error) or any(each in str(error) for each in TOO_LARGE):
        return OutOfMemoryError(
            f"The model in {name} needs more memory than there is.", "Use a smaller one, or a machine with more memory."
        )
    if "trust_remote_code" in str(error):
        return ModelError(
            f"{name} comes with its own model code, which isn't run.",
            "If you trust it, train on it with --set model.trust_remote_code=true.",
        )
    if "ignore_mismatched_sizes" in text:
        return ModelError(f"config.json in {name} doesn't fit the weights beside it.", USE_ANOTHER)
    if "model type" in text:
        return ModelError(f"{name}: transformers doesn't know this architecture: {text}", "Use another model.")
    return ModelError(f"The model in {name} can't be opened: {text}", USE_ANOTHER)
