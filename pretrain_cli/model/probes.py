"""Finds out by a few tokens whether what ptk says of a model is true of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from pretrain_cli.errors import ModelError, first_line

TOKENS = 4
"""Of each of two documents."""
MEMORIES = ("past_key_values", "cache_params", "state")
"""Names of it: of keys and values, of Mamba's state, of RWKV's."""
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
    if logits.isnan().any():
        raise ModelError(
            f"'{name}' computes values that aren't numbers: a setting in its config.json is wrong.",
            "Use a complete copy, or another model.",
        )
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
    """Whether logits are the last hidden state times the head's matrix and nothing more (no scaling, cap or bias).

    By a few tokens' logits; of a model on the meta device, which has no numbers, by what its code hands on.
    """
    body, head = model.base_model, model.get_output_embeddings()
    plain = getattr(head, "original_module", head)  # PEFT wraps one of which it trains some rows
    if body is model or not isinstance(plain, nn.Linear) or plain.bias is not None:
        return False
    try:
        with _at_rest(model):
            if model.device.type == "meta":
                return _hands_on(model, body, head, plain.in_features)
            ids = torch.arange(TOKENS, device=model.device).remainder(head.weight.shape[0])[None]
            hidden = body(input_ids=ids, use_cache=False).last_hidden_state
            return torch.allclose(F.linear(hidden, head.weight), _logits(model, ids), rtol=1e-3, atol=1e-4)
    except FAILURES:
        return False


class _BodyOutput:
    """What a body gives, of which only the hidden state is there."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getattr__(self, name: str) -> None:
        return None

    def __getitem__(self, index: int) -> Tensor:
        return self.last_hidden_state


def _hands_on(model: PreTrainedModel, body: nn.Module, head: nn.Module, width: int) -> bool:
    """Whether the head reads the body's output, and its own output are the logits, each unchanged on the way."""
    ids = torch.zeros(1, TOKENS, dtype=torch.int64, device="meta")
    hidden = torch.empty(1, TOKENS, width, dtype=model.dtype, device="meta")
    seen: list[tuple[Tensor, int]] = []
    hook = head.register_forward_hook(lambda module, given, output: seen.extend(map(_versioned, (given[0], output))))
    body.forward = lambda *words, **keywords: _BodyOutput(hidden)
    try:
        logits = _logits(model, ids)
    finally:
        hook.remove()
        del body.__dict__["forward"]
    return len(seen) == 2 and _is_same((hidden, 0), seen[0]) and _is_same(seen[1], _versioned(logits))


def _versioned(tensor: Tensor) -> tuple[Tensor, int]:
    return tensor, tensor._version


def _is_same(earlier: tuple[Tensor, int], later: tuple[Tensor, int]) -> bool:
    """Whether a tensor is an earlier one, or a view of all of it, and nothing was written into it in between."""
    (one, version), (other, now) = earlier, later
    whole = one.shape == other.shape and one.stride() == other.stride() and version == now
    return whole and one.untyped_storage()._cdata == other.untyped_storage()._cdata


def memory_of(model: PreTrainedModel, forward: Callable[..., Any] | None = None) -> str:
    """What ``model`` calls its memory of the ids it has read, if it goes on from that as if it read all at once.

    Args:
        model: any.
        forward: instead of its own.

    Returns:
        The name in its outputs and arguments: ``past_key_values``, or that of a recurrent state. Empty where there is
        none to go on from.
    """
    forward = forward or model
    ids = _ids(model, 1, 2 * TOKENS)
    try:
        with _at_rest(model):
            whole = forward(input_ids=ids, use_cache=False).logits[:, TOKENS - 1 :]
            output = forward(input_ids=ids[:, :TOKENS], use_cache=True)
            name = next((name for name in MEMORIES if getattr(output, name, None) is not None), "")
            found = [output.logits[:, -1:]]
            for place in range(TOKENS, 2 * TOKENS) if name else ():
                output = forward(input_ids=ids[:, place : place + 1], use_cache=True, **{name: getattr(output, name)})
                found.append(output.logits)
            return name if name and _same(model, whole, torch.cat(found, dim=1)) else ""
    except FAILURES:
        return ""


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
