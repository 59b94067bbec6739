"""Computes the next-token loss without ever holding all logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from pretrain_cli.training.step.teachers import Lesson, Teachers

IGNORED = -100
CHUNK_ELEMENTS = 1 << 22
"""Logits at once: 1 024 rows at 4 096 entries, 16 MB in fp32, which stays near the cores' caches."""
GPU_CHUNKS, GPU_CHUNK_ELEMENTS = 4, 1 << 28
"""On a GPU few large products are fastest: four chunks, or as many as keep the logits of each under 1 GiB in fp32."""
LEAST_CHUNK_ROWS = 512
"""Each chunk adds to the whole head's gradient: with 128 rows at 32 000 entries that took a fifth of the time in fp32,
a third in bf16; 512 rows of them are 66 MB."""


class StepLoss(NamedTuple):
    """Sums over the scored tokens, in nats: what is minimized (z-loss and teachers included), and two parts of it."""

    total: Tensor
    z_loss: Tensor
    text: Tensor


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies, gradients made in the forward pass, chunk by chunk (as Liger kernels do it)."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        places: Tensor | None,
        kept: Tensor | None,
        z_loss: float,
        lesson: Lesson | None,
        needs_gradient: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        moves = needs_gradient and ctx.needs_input_grad[1]  # not a head that LoRA leaves as it is
        rows = chunk_rows(weight.shape[0], len(labels), hidden.device.type == "cpu")
        taught = lesson.weight if lesson is not None else 0.0
        text = hidden.new_zeros((), dtype=torch.float32)
        penalty, soft = torch.zeros_like(text), torch.zeros_like(text)
        grad_hidden = torch.empty_like(hidden) if needs_gradient else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if moves else None
        for start in range(0, len(labels), rows):
            part, wanted = hidden[start : start + rows], labels[start : start + rows]
            scored = kept[start : start + rows] if kept is not None else None
            logits = F.linear(part, weight).float()
            chosen = logits.gather(1, wanted[:, None])[:, 0]
            target = None
            if lesson is not None:
                asked = places[start : start + rows] if places is not None else _range(start, len(wanted), wanted)
                target = lesson.probabilities(asked, logits.shape[1])
                target = target if scored is None else target * scored[:, None]
                soft -= torch.linalg.vecdot(target, logits).sum()
            # One exponential for both the loss and the gradient, in place: exp is the slowest thing here on a CPU.
            top = logits.amax(-1)
            gradient = logits.sub_(top[:, None]).exp_()
            mass = gradient.sum(-1)
            log_z = top + mass.log()
            text += _sum(log_z - chosen, scored)
            if target is not None:
                soft += _sum(log_z, scored)
            if z_loss:
                penalty += z_loss * _sum(log_z.square(), scored)
            if grad_hidden is None:
                continue
            factor, own = (1 + 2 * z_loss * log_z) / mass, gradient.new_full((len(wanted),), taught - 1.0)
            if scored is not None:
                factor, own = factor * scored, own * scored
            gradient.mul_(factor[:, None])
            gradient.scatter_add_(1, wanted[:, None], own[:, None])
            if target is not None:
                gradient.sub_(target, alpha=taught)
            grad_hidden[start : start + rows] = _product(gradient, weight, hidden.dtype)
            if grad_weight is not None:
                _accumulate(grad_weight, gradient, part)
        if grad_hidden is not None:
            ctx.save_for_backward(grad_hidden, grad_weight.to(weight.dtype) if grad_weight is not None else None)
        ctx.mark_non_differentiable(penalty, text)
        return text + taught * (soft - text) + penalty if taught else text + penalty, penalty, text

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        own = grad_weight.mul_(grad_loss) if grad_weight is not None else None
        return grad_hidden * grad_loss, own, None, None, None, None, None, None


def _is_queued(tensor: Tensor) -> bool:
    """Whether whoever asks for a value of ``tensor`` waits for all that was computed before."""
    return tensor.device.type != "cpu"


def _sum(values: Tensor, scored: Tensor | None) -> Tensor:
    return values.sum() if scored is None else (values * scored).sum()


def chunk_rows(vocab_size: int, tokens: int, on_cpu: bool) -> int:
    """Rows whose logits are held at once, of ``tokens`` of a micro-batch."""
    if on_cpu:
        return max(LEAST_CHUNK_ROWS, CHUNK_ELEMENTS // vocab_size)
    return max(LEAST_CHUNK_ROWS, min(-(-tokens // GPU_CHUNKS), GPU_CHUNK_ELEMENTS // vocab_size))


def logit_bytes(vocab_size: int, hidden: int, tokens: int, on_cpu: bool, moves: bool = True) -> float:
    """Bytes of a loss in chunks at its peak: a chunk's logits three times, and the gradients of what the head reads.

    Args:
        vocab_size: rows of the head.
        hidden: its width.
        tokens: of a micro-batch.
        on_cpu: computed there.
        moves: the head's gradient is summed, in fp32.
    """
    chunk = min(chunk_rows(vocab_size, tokens, on_cpu), tokens) * vocab_size
    return 3 * 4.0 * chunk + (4.0 * vocab_size * hidden if moves else 0.0) + 2 * 4.0 * tokens * hidden


def _product(gradient: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    # Under autocast both become bf16, as the head's own product did.
    return torch.mm(
        gradient if torch.is_autocast_enabled(gradient.device.type) else gradient.to(weight.dtype), weight
    ).to(dtype)


def _accumulate(total: Tensor, gradient: Tensor, hidden: Tensor) -> None:
    if torch.is_autocast_enabled(gradient.device.type) or hidden.dtype != torch.float32:
        total.add_(torch.mm(gradient.t().to(hidden.dtype), hidden))  # in place: no fp32 copy of the whole head
    else:
        total.addmm_(gradient.t(), hidden)


def _range(start: int, count: int, like: Tensor) -> Tensor:
    return torch.arange(start, start + count, device=like.device)


def chunked_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, z_loss: float = 0.0, lesson: Lesson | None = None
) -> StepLoss:
    """Sums of next-token losses, without all logits at once: neither the model's own nor the teachers'.

    Args:
        hidden: [n, H], what the head reads.
        weight: [V, H], the head.
        labels: int64 [n], the token that follows. On a CPU IGNORED rows are left out before anything is multiplied. On
            a GPU they count nothing: to know how many there are, one would have to wait for it.
        z_loss: weight of log²Z (PaLM, arXiv 2204.02311).
        lesson: what the teachers say about the same n places.
    """
    scored = labels != IGNORED
    places = kept = None
    if _is_queued(scored):
        labels, kept = labels.clamp(min=0), scored
    elif not bool(scored.all()):
        places = scored.nonzero()[:, 0]
        hidden, labels = hidden.index_select(0, places), labels.index_select(0, places)
    needs_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    apply: Callable[..., tuple[Tensor, Tensor, Tensor]] = _ChunkedCrossEntropy.apply  # torch leaves it untyped
    return StepLoss(*apply(hidden, weight, labels, places, kept, z_loss, lesson, needs_gradient))


def whole_cross_entropy(logits: Tensor, labels: Tensor, z_loss: float = 0.0, lesson: Lesson | None = None) -> StepLoss:
    """The same from logits [n, V] held whole, for models whose head isn't one plain matrix."""
    logits = logits.float()
    text = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    total, penalty = text, text.new_zeros(())
    kept = labels != IGNORED
    if lesson is not None:
        target = lesson.probabilities(_range(0, len(labels), labels), logits.shape[1])
        soft = -((target * torch.log_softmax(logits, -1)).sum(-1) * kept).sum()
        total = text + lesson.weight * (soft - text)
    if z_loss:
        penalty = z_loss * (torch.logsumexp(logits, -1).square() * kept).sum()
    return StepLoss(total + penalty, penalty.detach(), text.detach())


def following(labels: Tensor) -> Tensor:
    """int64 [B·L]: for each position the token after it, IGNORED at each row's end."""
    return F.pad(labels[:, 1:], (0, 1), value=IGNORED).reshape(-1)


def _lengths(starts: Tensor, length: int) -> dict[str, Tensor | int]:
    """What transformers' flash attention takes: without it, it looks for packed rows itself, in one row only."""
    return {"cu_seq_lens_q": starts, "cu_seq_lens_k": starts, "max_length_q": length, "max_length_k": length}


def _in_head(head: nn.Module, hidden: Tensor, compute: Callable[[Tensor, Tensor], StepLoss]) -> StepLoss:
    """``compute(hidden, weight)`` as the head's own forward: where it is sharded, its weights are gathered for that."""
    own = head.__dict__.get("forward")

    def forward(hidden: Tensor) -> StepLoss:
        weight = head.weight
        assert isinstance(weight, Tensor)
        return compute(hidden, weight)

    head.forward = forward
    try:
        found: StepLoss = head(hidden)
        return found
    finally:
        del head.__dict__["forward"]
        if own is not None:
            head.forward = own


def attach_loss(
    model: PreTrainedModel,
    chunked: bool,
    z_loss: float,
    body: Callable[..., Any] | None = None,
    teachers: Teachers | None = None,
) -> Callable[[], None]:
    """Make ``model.forward`` give the loss alone, so that DDP and autocast wrap the head's work too.

    ``use_cache=False`` and no attention mask: only then transformers builds the block-diagonal mask from
    ``position_ids`` that restart.

    Args:
        model: whose forward is replaced.
        chunked: compute the loss in chunks of rows.
        z_loss: weight of log²Z.
        body: what to call instead of the model's body, where that is compiled.
        teachers: asked in training mode only; validation scores the text alone.

    Returns:
        What takes it off again, before the model is used for anything else.
    """
    original = model.forward

    def forward(
        input_ids: Tensor,
        labels: Tensor,
        position_ids: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        cu_seq_lens: Tensor | None = None,
    ) -> dict[str, Tensor]:
        targets = following(labels)
        lengths = _lengths(cu_seq_lens, input_ids.shape[1]) if cu_seq_lens is not None else {}
        lesson = teachers.look(input_ids, position_ids) if teachers is not None and model.training else None
        if chunked:
            hidden = (body or model.base_model)(
                input_ids=input_ids, position_ids=position_ids, use_cache=False, **lengths
            ).last_hidden_state
            found = _in_head(
                model.get_output_embeddings(),
                hidden.reshape(-1, hidden.shape[-1]),
                lambda hidden, weight: chunked_cross_entropy(hidden, weight, targets, z_loss, lesson),
            )
        else:
            logits = original(input_ids=input_ids, position_ids=position_ids, use_cache=False, **lengths).logits
            found = whole_cross_entropy(logits.reshape(-1, logits.shape[-1]), targets, z_loss, lesson)
        count = (targets != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        text = found.text.detach()
        return {"loss": found.total / count, "z_loss": found.z_loss / count, "text_loss": text / count, "total": text}

    model.forward = forward

    def detach() -> None:
        model.__dict__.pop("forward", None)
        model.__dict__.pop("_original_forward", None)

    return detach
