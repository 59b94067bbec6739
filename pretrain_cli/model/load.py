"""How is a model opened from a folder, so that whatever is wrong with it is said before it is used?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pretrain_cli.errors import ModelError

TRAIN_AGAIN = "Use a complete copy, or another checkpoint: ptk runs show"


def load_model(
    folder: Path | str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    tokenizer_size: int | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """The causal language model in ``folder`` (or of a hub id), in evaluation mode, its weights checked.

    Args:
        folder: what ``from_pretrained`` takes.
        device: where the weights go.
        dtype: of the weights.
        tokenizer_size: ids that the tokenizer can make; the embedding must have a row for each.
        trust_remote_code: run model code that comes with the folder.

    Raises:
        ModelError: no weights, truncated or incomplete weights, non-finite values, remote code, or an embedding
            smaller than the tokenizer.
    """
    name = str(folder)
    if Path(folder).is_dir():
        check_weights_files(Path(folder))
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, trust_remote_code=trust_remote_code, output_loading_info=True
        )
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise _explain(name, error) from error
    missing = sorted(report.get("missing_keys", ()))
    if missing:
        raise ModelError(f"The weights in {name} lack {len(missing)} tensors, {missing[0]} first.", TRAIN_AGAIN)
    check_finite(model, name)
    if tokenizer_size is not None:
        check_vocabulary(model, tokenizer_size, name)
    model.to(torch.device(device))
    model.eval()
    return model


def check_weights_files(folder: Path) -> None:
    """Every safetensors file that the folder should have is there and whole; reads headers only.

    Raises:
        ModelError: no config, no weights, or a file that is missing or cut short.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} holds no model: config.json is missing.", "Give a folder that a run or hub model made."
        )
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        except (ValueError, KeyError) as error:
            raise ModelError(f"{index} is damaged: {error}.", TRAIN_AGAIN) from error
        files = [folder / name for name in names]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files and not list(folder.glob("pytorch_model*.bin")):
        raise ModelError(f"{folder} holds no weights.", TRAIN_AGAIN)
    for file in files:
        if not file.is_file():
            raise ModelError(f"{file} is missing.", TRAIN_AGAIN)
        try:
            with safe_open(file, "pt") as tensors:
                tensors.keys()
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} is damaged or cut short: {error}.", TRAIN_AGAIN) from error


def check_weights(folder: Path) -> int:
    """Look at each weight of the safetensors files in ``folder`` without building the model; how many there are.

    Raises:
        ModelError: as `check_weights_files`, or a weight is NaN or infinite.
    """
    check_weights_files(folder)
    parameters = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118, it isn't a dict
                tensor = tensors.get_tensor(key)
                _check_tensor(str(folder), key, tensor)
                parameters += tensor.numel()
    return parameters


def check_finite(model: torch.nn.Module, name: str) -> None:
    """Raise ModelError if a weight is NaN or infinite; names the first such tensor."""
    for key, tensor in model.state_dict().items():
        _check_tensor(name, key, tensor)


def _check_tensor(name: str, key: str, tensor: torch.Tensor) -> None:
    if tensor.is_floating_point() and tensor.element_size() > 1 and not torch.isfinite(tensor.sum(dtype=torch.float32)):
        count = int((~torch.isfinite(tensor)).sum())
        if count:  # a sum may overflow where each value is finite
            raise ModelError(f"The weights in {name} hold {count} NaN or infinite values, {key} first.", TRAIN_AGAIN)


def check_vocabulary(model: Any, tokenizer_size: int, name: str) -> None:
    """Raise ModelError if the tokenizer can make ids that the embedding has no row for."""
    rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer_size > rows:
        raise ModelError(
            f"The tokenizer has {tokenizer_size} entries, the embedding of {name} {rows} rows.",
            "The tokenizer belongs to another model: put the right tokenizer.json beside the weights.",
        )


def read_model_config(location: str, trust_remote_code: bool = False) -> Any:
    """The transformers config at ``location``, a folder or hub id.

    Raises:
        ModelError: there is none, or it needs code of its own.
    """
    try:
        return AutoConfig.from_pretrained(location, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise _explain(location, error) from error


def _explain(name: str, error: Exception) -> ModelError:
    text = str(error).strip().split("\n")[0]
    if "trust_remote_code" in str(error):
        return ModelError(
            f"{name} comes with model code of its own.", "If you trust it: --set model.trust_remote_code=true"
        )
    if "model type" in text:
        return ModelError(f"{name}: transformers doesn't know this architecture: {text}", "Use another model.")
    return ModelError(f"The model in {name} can't be opened: {text}", TRAIN_AGAIN)
