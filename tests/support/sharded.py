"""What a rank of a sharded training does in tests: each function runs on every rank, over gloo."""

from __future__ import annotations

import gc
import resource
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pretrain_cli.config.model import Config, TrainConfig
from pretrain_cli.processes import world_size
from pretrain_cli.training.choices.recipe import Rates
from pretrain_cli.training.keeping.background import Background, HostCopy
from pretrain_cli.training.keeping.checkpoints import read_back
from pretrain_cli.training.processes.agreement import apart, gathered, rank, same, totals
from pretrain_cli.training.processes.sharded_reading import outline_of, read_sharded
from pretrain_cli.training.processes.sharding import check_share, load_any, save_shards, shard, state_of
from pretrain_cli.training.step import optimizers
from pretrain_cli.training.step.loss import attach_loss
from pretrain_cli.training.trainer import PackedTrainer
from tests.support.families import SIZES


def model_of(layers: int = 2, **sizes: Any) -> PreTrainedModel:
    """A small model, the same on every rank."""
    torch.manual_seed(0)
    values = {**SIZES, "num_hidden_layers": layers, "head_dim": 8, **sizes}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3", **values))


def save_on(folder: str) -> str:
    """Save a sharded model's first step into ``folder``; how that ended, in words."""
    model = model_of(hidden_size=256, intermediate_size=1024)
    shard(model, "cpu", world_size())
    optimizer = torch.optim.AdamW(model.parameters())
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    try:
        save_shards(Path(folder), state_of(model, optimizer))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "saved"


def save_beside(folder: str) -> dict[str, Any]:
    """Write a copy of the shards in the background, while the weights change and this thread agrees on other things."""
    model = model_of()
    shard(model, "cpu", world_size())
    optimizer = torch.optim.AdamW(model.parameters())
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    saved = [weight.to_local().clone() for weight in model.parameters()]
    state, work, found = HostCopy(torch.device("cpu"))(state_of(model, optimizer)), Background(), {}

    def write() -> None:
        with apart():
            place = Path(same(lambda: folder))
            save_shards(place, state)
            mine = read_back(place, rank(), world_size())
            found.update(own=list(mine), all=sorted(name for part in gathered(mine) for name in part))

    work.start(write)
    sums = [totals(1.0)[0] for _ in range(50)]
    optimizer.step()
    work.wait()
    moved = all(not torch.equal(weight.to_local(), old) for weight, old in zip(model.parameters(), saved, strict=True))
    load_any(Path(folder), model, optimizer)
    back = all(torch.equal(weight.to_local(), old) for weight, old in zip(model.parameters(), saved, strict=True))
    return {**found, "moved": moved, "back": back, "sums": sorted(set(sums))}


def muon_steps(stack: int) -> dict[str, Any]:
    """Three steps of Muon whose matrices are shared out; what moved, and how many went through Newton-Schulz here."""
    optimizers.STACK_ELEMENTS, plain, seen = stack, optimizers.orthogonalize, []

    def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
        seen.append(len(matrices))
        return plain(matrices)

    optimizers.orthogonalize = orthogonalize
    model = model_of(3, hidden_size=32, intermediate_size=48)
    optimizer = optimizers.make_optimizer(model, "muon", TrainConfig(), Rates(1e-2, 4e-2, 1e-1), processes=world_size())
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        for weight in model.parameters():
            weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()
    weights = torch.cat([weight.flatten() for weight in model.parameters()]).tolist()
    return {"weights": weights, "own": sum(seen) // 3, "most": max(seen, default=0)}


def forward(precision: str, policy: bool) -> dict[str, Any]:
    """Bytes that a forward pass keeps for the backward pass, and what the gradients then are.

    Args:
        precision: see `train.precision`.
        policy: by the sharding's own policy; else by autocast over fp32 shards.
    """
    model = model_of(8, hidden_size=128, intermediate_size=512, tie_word_embeddings=False)
    whole = sum(weight.numel() for weight in model.base_model.layers.parameters())
    shard(model, "cpu", world_size(), precision if policy else "fp32")
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    ids = torch.arange(16).view(2, 8)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=not policy),
    ):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    gradients = [weight.grad for weight in model.parameters()]
    return {
        "loss": float(loss),
        "kept_weights": sum(storage.nbytes() for storage in kept.values()) / (2 * whole),
        "gradients": sorted({str(gradient.dtype) for gradient in gradients}),
        "groups": sum(hasattr(module, "unshard") for module in model.modules()),
    }


def head() -> dict[str, Any]:
    """When a head of its own is whole, and how far loss and gradients are from those of the model in one piece."""
    whole, model = (model_of(4, hidden_size=64, vocab_size=512, tie_word_embeddings=False) for _ in range(2))
    shard(model, "cpu", world_size())
    lm_head, last = model.get_output_embeddings(), model.base_model.layers[-1]
    seen: dict[str, bool] = {}

    def look(moment: str) -> None:
        seen[moment] = not isinstance(lm_head.weight, DTensor)

    last.register_forward_hook(lambda module, given, output: look("whole before the loss"))
    last.register_full_backward_hook(lambda module, given, output: look("whole after the last layer's backward"))
    ids = torch.arange(16).view(2, 8)
    losses = []
    for each in (whole, model):
        attach_loss(each, True, 0.0)
        loss = each(input_ids=ids, labels=ids)["loss"]
        loss.backward()
        losses.append(float(loss))
    wanted, found = (dict(each.named_parameters()) for each in (whole, model))
    far = {name: _far(found[name].grad.full_tensor(), wanted[name].grad) for name in wanted}
    return {"losses": losses, "far": max(far.values()), **seen, "head": lm_head.weight.grad.to_local().shape[0]}


def read(folder: str, base: str) -> dict[str, Any]:
    """What a rank holds of a base before and after its weights are read, and its loss on a few tokens."""
    config = Config.model_validate({"model": {"base": base}, "train": {"shard_model": True}})
    outline = outline_of(config, AutoConfig.from_pretrained(folder), "cpu", torch.float32)
    assert outline is not None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = read_sharded(folder, "fp32", torch.float32)
    grew = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    ids = torch.arange(16).view(2, 8)
    attach_loss(model, outline.plain_head, 0.0)
    return {
        "outline": sorted({weight.device.type for weight in outline.model.parameters()}),
        "share": check_share(model),
        "grew": grew / (4 * model.num_parameters()),
        "loss": float(model(input_ids=ids, labels=ids)["loss"]),
        "known": [outline.keeps_apart, outline.plain_head],
        "groups": [name for name, module in model.named_modules() if hasattr(module, "unshard")],
    }


def _far(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def accumulate(steps: int) -> dict[str, float]:
    """Gradients held after ``steps`` micro-batches of one optimizer step, as a share of all weights."""
    model = model_of(4, hidden_size=128, intermediate_size=512)
    weights = sum(weight.numel() for weight in model.parameters())
    shard(model, "cpu", world_size())
    trainer = PackedTrainer.__new__(PackedTrainer)
    trainer.model = model
    ids = torch.arange(16).view(2, 8)
    held = 0
    for _ in range(steps):
        with trainer._defer_fsdp_gradient_reduction():
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    for found in gc.get_objects():
        if type(found).__name__ == "FSDPParam":
            whole = getattr(found, "unsharded_accumulated_grad", None)
            held += whole.numel() if whole is not None else 0
    own = sum(weight.grad.to_local().numel() for weight in model.parameters() if weight.grad is not None)
    return {"whole": held / weights, "own": own / weights}
