"""Makes the optimizer, AdamW or Muon with AdamW, and decides which weights each moves."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.adamw import adamw

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.training.choices.recipe import Rates

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration (Jordan et al. 2024, kellerjordan.github.io/posts/muon)."""
NEWTON_SCHULZ_STEPS = 5
MUON_MOMENTUM = 0.95
STACK_ELEMENTS = 1 << 26
"""Of matrices that go through Newton-Schulz together, on each process: 256 MB in fp32, and three times as much while it
computes."""
EPSILON = 1e-8
NO_PRODUCTS = (nn.Embedding, nn.modules.conv._ConvNd)
NO_MATRIX = re.compile(r"(?i)bias|A_log|scale|norm")
"""In the names of weights that are added, or scale: biases of all experts in one tensor, the decay of Mamba's state."""


@dataclass(frozen=True)
class Parameters:
    """A model's trainable weights by role, each once.

    Attributes:
        matrices: inside the layers, [rows, columns]; of a mixture's experts in one tensor, [experts, rows, columns].
        embedding: the input embedding, where the head has its own weights.
        head: the head, tied or not.
        rest: norms, biases, other embeddings (of positions), convolutions, and what a recurrent state decays by.
    """

    matrices: list[nn.Parameter]
    embedding: list[nn.Parameter]
    head: list[nn.Parameter]
    rest: list[nn.Parameter]


def split_parameters(model: nn.Module) -> Parameters:
    """Sort the weights by role."""
    head, embedding = _weights(model, "get_output_embeddings"), _weights(model, "get_input_embeddings")
    found = Parameters([], [], [], [])
    matrices = _matrices(model)
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in head:
            found.head.append(parameter)
        elif id(parameter) in embedding:
            found.embedding.append(parameter)
        elif id(parameter) in matrices:
            found.matrices.append(parameter)
        else:
            found.rest.append(parameter)
    return found


def _matrices(model: nn.Module) -> set[int]:
    """The weights that multiply what comes in, by what their module does with them and not by their shape alone."""
    return {
        id(parameter)
        for module in model.modules()
        if not isinstance(module, NO_PRODUCTS)
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim == 2 or (parameter.ndim == 3 and min(parameter.shape[-2:]) > 1)
        if not NO_MATRIX.search(name)
    }


def _weights(model: nn.Module, getter: str) -> set[int]:
    module = getattr(model, getter, lambda: None)()
    return {id(parameter) for parameter in module.parameters()} if module is not None else set()


def make_optimizer(
    model: nn.Module,
    name: str,
    train: TrainConfig,
    rates: Rates,
    newton_schulz: torch.dtype = torch.float32,
    epsilon: float = EPSILON,
    processes: int = 1,
) -> torch.optim.Optimizer:
    """The optimizer called "adamw" or "muon"; weight decay on matrices only, never on norms, biases, embeddings.

    Args:
        model: whose weights it moves.
        name: "adamw" or "muon".
        train: has the weight decay.
        rates: peaks, and the moments' decay.
        newton_schulz: what Muon computes in; bf16 where training has it too, as the machine then does it natively.
        epsilon: AdamW's, ``[trainer] adam_epsilon``.
        processes: that move the same weights by the same gradients, and share Muon's work.
    """
    weights = split_parameters(model)
    betas = (rates.beta1, rates.beta2)
    muon = name == "muon"
    groups: list[dict[str, Any]] = [
        {"params": weights.head + weights.rest, "lr": rates.main, "weight_decay": 0.0},
        {"params": weights.embedding, "lr": rates.embedding, "weight_decay": 0.0},
        {"params": weights.matrices, "lr": rates.matrix if muon else rates.main, "weight_decay": train.weight_decay},
    ]
    if muon:
        groups[-1]["muon"] = True
        return MuonAdamW(groups, betas, newton_schulz, epsilon, processes)
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=rates.main, betas=betas, eps=epsilon, fused=True)


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the groups marked ``muon``, AdamW for the others, as one optimizer with one state.

    Newton-Schulz runs in ``dtype``: bf16 takes half the time where the machine has it, and crawls on a CPU that
    emulates it (torch.optim.Muon always takes it). Matrices of one shape go through it together, as many as
    `STACK_ELEMENTS` holds. Each of several processes takes its share of them, and gives the others what it found.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        betas: tuple[float, float],
        dtype: torch.dtype = torch.float32,
        epsilon: float = EPSILON,
        processes: int = 1,
    ) -> None:
        self.dtype, self.processes = dtype, processes
        defaults = {"lr": 0.0, "betas": betas, "weight_decay": 0.0, "muon": False, "momentum": MUON_MOMENTUM}
        super().__init__((group for group in groups if group["params"]), {**defaults, "eps": epsilon, "fused": True})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state of a checkpoint, every tensor to where its weight is.

        torch leaves `step` where it was read to, the CPU, unless its group says `fused`; those of older checkpoints
        don't, and the fused AdamW refuses a step that isn't beside its weight.
        """
        groups = [{**group, "fused": True} for group in state_dict["param_groups"]]
        super().load_state_dict({**state_dict, "param_groups": groups})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of all weights that have a gradient."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            if group["muon"]:
                self._muon(group)
            else:
                self._adamw(group)
        return loss

    def _muon(self, group: dict[str, Any]) -> None:
        by_shape: dict[tuple[int, ...], list[Tensor]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
        turn = 0  # the process that takes the next share: few matrices of each shape would all go to the first ones
        for shape, parameters in by_shape.items():
            most = self.processes * max(1, STACK_ELEMENTS // math.prod(shape))
            for start in range(0, len(parameters), most):
                turn += self._move(parameters[start : start + most], group, turn)

    def _move(self, parameters: list[Tensor], group: dict[str, Any], turn: int) -> int:
        """Move weights of one shape along their orthogonalized momentum; gives the number of processes that shared it.

        Args:
            parameters: all of one shape.
            group: with their rate.
            turn: the process that takes the first share.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        buffers = [self._buffer(parameter) for parameter in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        shape, share = parameters[0].shape, -(-len(parameters) // self.processes)
        first = share * ((dist.get_rank() - turn) % self.processes if self.processes > 1 else 0)
        own = slice(first, first + share)
        found = parameters[0].new_empty((0, *shape), dtype=self.dtype)
        if buffers[own]:
            updates = torch._foreach_lerp(gradients[own], buffers[own], group["momentum"])  # Nesterov
            # Each expert's matrix is one, whether it has a tensor of its own or not.
            matrices = torch.stack(updates).to(self.dtype).view(-1, *shape[-2:])
            found = orthogonalize(matrices).view(len(updates), *shape)
        if self.processes > 1:
            found = _of_all(found, share, self.processes, turn)[: len(parameters)]
        scale = max(1.0, shape[-2] / shape[-1]) ** 0.5
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, list(found.to(parameters[0].dtype)), alpha=-group["lr"] * scale)
        return -(-len(parameters) // share)

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        return buffer

    def _adamw(self, group: dict[str, Any]) -> None:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group.get("eps", EPSILON),  # older checkpoints have none
            maximize=False,
        )


def _of_all(mine: Tensor, share: int, processes: int, turn: int) -> Tensor:
    """What all processes have of the matrices [at most share, …], one after the other, that of process turn first."""
    padded = mine.new_zeros((share, *mine.shape[1:]))
    padded[: len(mine)] = mine
    everyones = mine.new_empty((processes * share, *mine.shape[1:]))
    # As bytes: gloo knows fewer types than the matrices may have.
    dist.all_gather_into_tensor(everyones.view(torch.uint8), padded.view(torch.uint8))
    return everyones.roll(-turn * share, 0)


def orthogonalize(matrices: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrices, roughly: singular values end between 0.7 and 1.2.

    Args:
        matrices: [n, rows, columns], in the precision to compute in.

    Returns:
        The same shape and precision.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = (x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)).contiguous()
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = torch.bmm(x, x.transpose(1, 2))
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x
