"""Opens a model with transformers, so that whatever is wrong with it is said before it is used."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from pretrain_cli.errors import ModelError, first_line
from pretrain_cli.formatting import count_of
from pretrain_cli.model.files import USE_ANOTHER, check_finite, check_vocabulary, check_weight_files
from pretrain_cli.model.pickles import files_of, foreign, pickle_notes_ignored


def load_model(
    folder: Path | str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    tokenizer_size: int | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """The causal language model in ``folder`` (or of a Hub id), in evaluation mode, its weights checked.

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
        check_weight_files(Path(folder))
    try:
        with pickle_notes_ignored():
            model, report = AutoModelForCausalLM.from_pretrained(
                name, dtype=dtype, trust_remote_code=trust_remote_code, output_loading_info=True
            )
    except (pickle.UnpicklingError, EOFError) as error:
        raise ModelError(
            f"{_foreign_weights(Path(folder)) or f'The weights of {name} are a Python pickle: they were not loaded'}.",
            "Use a copy of the model whose weights are in safetensors files.",
        ) from error
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise _explain(name, error) from error
    missing = sorted(report.get("missing_keys", ()))
    if missing:
        raise ModelError(
            f"The weights in {name} lack {count_of(len(missing), 'tensor')}, first {missing[0]}.", USE_ANOTHER
        )
    check_finite(model.state_dict(), name)
    if tokenizer_size is not None:
        check_vocabulary(tokenizer_size, embedding_rows(model), name)
    model.to(torch.device(device))
    model.eval()
    return model


def _foreign_weights(folder: Path) -> str:
    return next(filter(None, map(foreign, files_of(folder) if folder.is_dir() else ())), "")


def embedding_rows(model: PreTrainedModel) -> int:
    """Ids that the model has an embedding for."""
    return int(model.get_input_embeddings().weight.shape[0])


def read_model_config(location: str, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The transformers config at ``location``, a folder or Hub id.

    Raises:
        ModelError: there is none, or it needs its own code.
    """
    try:
        return AutoConfig.from_pretrained(location, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise _explain(location, error) from error


def runs_own_code(config: PreTrainedConfig) -> bool:
    """Whether the config's class came with its model, and not with transformers: its code was trusted and has run."""
    return type(config).__module__.startswith("transformers_modules")


def _explain(name: str, error: Exception) -> ModelError:
    text = first_line(error)
    if "trust_remote_code" in str(error):
        return ModelError(
            f"{name} comes with its own model code, which isn't run.",
            "If you trust it, train on it with --set model.trust_remote_code=true.",
        )
    if "model type" in text:
        return ModelError(f"{name}: transformers doesn't know this architecture: {text}", "Use another model.")
    return ModelError(f"The model in {name} can't be opened: {text}", USE_ANOTHER)
