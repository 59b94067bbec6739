"""Computes the next-token loss without ever holding all logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

IGNORED = -100
CHUNK_ELEMENTS = 1 << 22
"""Logits at once: 1 024 rows at 4 096 entries, 16 MB in fp32, which stays near the cores' caches."""
LEAST_CHUNK_ROWS = 512
"""Each chunk adds to the whole head's gradient: with 128 rows at 32 000 entries that took a fifth of the time in fp32,
a third in bf16; 512 rows of them are 66 MB."""


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies, gradients made in the forward pass, chunk by chunk (as Liger kernels do it)."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, z_loss: float, needs_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        rows = chunk_rows(weight.shape[0])
        loss = hidden.new_zeros((), dtype=torch.float32)
        penalty = hidden.new_zeros((), dtype=torch.float32)
        grad_hidden = torch.empty_like(hidden) if needs_gradient else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_gradient else None
        for start in range(0, len(labels), rows):
            part, wanted = hidden[start : start + rows], labels[start : start + rows]
            logits = F.linear(part, weight).float()
            chosen = logits.gather(1, wanted[:, None])[:, 0]
            # One exponential for both the loss and the gradient, in place: exp is the slowest thing here on a CPU.
            top = logits.amax(-1)
            gradient = logits.sub_(top[:, None]).exp_()
            mass = gradient.sum(-1)
            log_z = top + mass.log()
            loss += (log_z - chosen).sum()
            if z_loss:
                penalty += z_loss * log_z.square().sum()
            if grad_hidden is None or grad_weight is None:
                continue
            gradient.mul_(((1 + 2 * z_loss * log_z) / mass)[:, None])
            gradient.scatter_add_(1, wanted[:, None], gradient.new_full((len(wanted), 1), -1.0))
            grad_hidden[start : start + rows] = _product(gradient, weight, hidden.dtype)
            _accumulate(grad_weight, gradient, part)
        if grad_hidden is not None and grad_weight is not None:
            ctx.save_for_backward(grad_hidden, grad_weight.to(weight.dtype))
        ctx.mark_non_differentiable(penalty)
        return loss + penalty, penalty

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grad_loss, grad_weight.mul_(grad_loss), None, None, None


def chunk_rows(vocab_size: int) -> int:
    """Rows whose logits are held at once."""
    return max(LEAST_CHUNK_ROWS, CHUNK_ELEMENTS // vocab_size)


def _product(gradient: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    # Under autocast both become bf16, as the head's own product did.
    return torch.mm(
        gradient if torch.is_autocast_enabled(gradient.device.type) else gradient.to(weight.dtype), weight
    ).to(dtype)


def _accumulate(total: Tensor, gradient: Tensor, hidden: Tensor) -> None:
    if torch.is_autocast_enabled(gradient.device.type) or hidden.dtype != torch.float32:
        total += torch.mm(gradient.t().to(hidden.dtype), hidden).float()
    else:
        total.addmm_(gradient.t(), hidden)


def chunked_cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
    """Sum of next-token losses (with z-loss) and the z-loss's share, in nats.

    Args:
        hidden: [n, H], what the head reads.
        weight: [V, H], the head.
        labels: int64 [n], the token that follows; IGNORED rows are left out before anything is multiplied.
        z_loss: weight of log²Z (PaLM, arXiv 2204.02311).
    """
    kept = labels != IGNORED
    if not bool(kept.all()):
        places = kept.nonzero()[:, 0]
        hidden, labels = hidden.index_select(0, places), labels.index_select(0, places)
    needs_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    apply: Callable[..., tuple[Tensor, Tensor]] = _ChunkedCrossEntropy.apply  # torch leaves it untyped
    return apply(hidden, weight, labels, z_loss, needs_gradient)


def whole_cross_entropy(logits: Tensor, labels: Tensor, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
    """The same from logits [n, V] held whole, for models whose head isn't one plain matrix."""
    logits = logits.float()
    loss = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    penalty = loss.new_zeros(())
    if z_loss:
        penalty = z_loss * torch.logsumexp(logits, -1)[labels != IGNORED].square().sum()
    return loss + penalty, penalty.detach()


def following(labels: Tensor) -> Tensor:
    """int64 [B·L]: for each position the token after it, IGNORED at each row's end."""
    return F.pad(labels[:, 1:], (0, 1), value=IGNORED).reshape(-1)


def attach_loss(
    model: PreTrainedModel, chunked: bool, z_loss: float, body: Callable[..., Any] | None = None
) -> Callable[[], None]:
    """Make ``model.forward`` give the loss alone, so that DDP and autocast wrap the head's work too.

    ``use_cache=False`` and no attention mask: only then transformers builds the block-diagonal mask from
    ``position_ids`` that restart.

    Args:
        model: whose forward is replaced.
        chunked: compute the loss in chunks of rows.
        z_loss: weight of log²Z.
        body: what to call instead of the model's body, where that is compiled.

    Returns:
        What takes it off again, before the model is used for anything else.
    """
    original = model.forward

    def forward(
        input_ids: Tensor,
        labels: Tensor,
        position_ids: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> dict[str, Tensor]:
        targets = following(labels)
        if chunked:
            hidden = (body or model.base_model)(
                input_ids=input_ids, position_ids=position_ids, use_cache=False
            ).last_hidden_state
            head = model.get_output_embeddings().weight
            total, penalty = chunked_cross_entropy(hidden.reshape(-1, hidden.shape[-1]), head, targets, z_loss)
        else:
            logits = original(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
            total, penalty = whole_cross_entropy(logits.reshape(-1, logits.shape[-1]), targets, z_loss)
        count = (targets != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        return {"loss": total / count, "z_loss": penalty / count, "total": (total - penalty).detach()}

    model.forward = forward

    def detach() -> None:
        model.__dict__.pop("forward", None)
        model.__dict__.pop("_original_forward", None)

    return detach
