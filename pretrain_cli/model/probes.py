"""Finds out by a few tokens whether what ptk says of a model is true of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from pretrain_cli.errors import ModelError, first_line

TOKENS = 4
"""Of each of two documents."""
MOVED = 1e-4
"""Share of the largest logit below which a difference is rounding. bf16 weights round more: 0.02 for them."""
MOVED_BF16 = 0.02
FAILURES = (AttributeError, TypeError, ValueError, RuntimeError, IndexError, KeyError, NotImplementedError)
"""What models raise that don't take what is asked of them."""


def check_causal(model: PreTrainedModel, name: str) -> None:
    """Check that no token's logits depend on the tokens after it: only then the loss says what the model predicts.

    Args:
        model: any that transformers opens for text generation, as which it opens BERT too.
        name: of the model, for the error.

    Raises:
        ModelError: they do, or the model can't compute anything.
    """
    ids = _ids(model, 2, 2 * TOKENS)
    ids[1] = ids[0]
    ids[1, -1] = (ids[0, -1] + 1) % _vocabulary(model)
    try:
        with _at_rest(model):
            logits = _logits(model, ids)[:, :-1]
    except FAILURES as error:
        raise ModelError(
            f"'{name}' can't compute {2 * TOKENS} tokens: {first_line(error)[:200]}.",
            "Use another model; ptk trains what AutoModelForCausalLM opens.",
        ) from error
    if not _same(model, logits[0], logits[1]):
        raise ModelError(
            f"'{name}' sees the tokens that it should predict: it isn't a causal language model.",
            "Use a model that was made to continue text. One that fills gaps, such as BERT, scores well by looking.",
        )


def keeps_documents_apart(model: PreTrainedModel) -> bool:
    """Whether documents in one row don't see each other where ``position_ids`` restart at each.

    Transformers builds a mask from them for most models, but not for those with a recurrent state, nor for those whose
    code doesn't hand them on. Another first document may not move the second one's logits, which have to be those of
    the second document alone.
    """
    ids = _ids(model, 2, 2 * TOKENS)
    ids[1, TOKENS:] = ids[0, TOKENS:]
    positions = torch.arange(TOKENS, device=model.device).repeat(2, 2)
    try:
        with _at_rest(model):
            together = _logits(model, ids, positions)[:, TOKENS:]
            alone = _logits(model, ids[:1, TOKENS:], positions[:1, TOKENS:])
    except FAILURES:
        return False
    return _same(model, together[0], together[1]) and _same(model, together[0], alone[0])


def head_is_plain(model: PreTrainedModel) -> bool:
    """Whether logits are the last hidden state times the head's matrix and nothing more (no scaling, cap or bias)."""
    body, head = model.base_model, model.get_output_embeddings()
    if body is model or not isinstance(head, nn.Linear) or head.bias is not None:
        return False
    ids = torch.arange(TOKENS, device=model.device).remainder(head.weight.shape[0])[None]
    try:
        with _at_rest(model):
            hidden = body(input_ids=ids, use_cache=False).last_hidden_state
            return torch.allclose(F.linear(hidden, head.weight), _logits(model, ids), rtol=1e-3, atol=1e-4)
    except FAILURES:
        return False


@contextlib.contextmanager
def _at_rest(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout and gradients; the model then trains, or doesn't, as before."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _vocabulary(model: PreTrainedModel) -> int:
    return int(model.get_input_embeddings().weight.shape[0])


def _ids(model: PreTrainedModel, rows: int, length: int) -> Tensor:
    """int64 [rows, length]: always the same ids."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(_vocabulary(model), (rows, length), generator=generator).to(model.device)


def _logits(model: PreTrainedModel, ids: Tensor, positions: Tensor | None = None) -> Tensor:
    """Logits as training asks for them: [rows, length, V]."""
    extra = {} if positions is None else {"position_ids": positions}
    logits: Tensor = model(input_ids=ids, use_cache=False, **extra).logits
    return logits


def _same(model: PreTrainedModel, one: Tensor, other: Tensor) -> bool:
    share = MOVED if model.dtype == torch.float32 else MOVED_BF16
    most = float(one.abs().max())
    return bool((one - other).abs().max() <= share * most) if most > 0 else bool((one == other).all())
