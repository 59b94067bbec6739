"""Each weight gets the update that it should."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.training.choices.recipe import Rates
from pretrain_cli.training.step.optimizers import MuonAdamW, make_optimizer, orthogonalize, split_parameters
from pretrain_cli.training.step.schedules import make_scheduler, rate_factor
from pretrain_cli.training.trainer import PackedTrainer
from tests.support.families import build
from tests.support.tiny import make_model

RATES = Rates(main=1e-2, matrix=4e-2, embedding=1e-1)


@pytest.fixture
def model(tmp_path):
    return AutoModelForCausalLM.from_pretrained(make_model(tmp_path / "model", "qwen3"))


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 24), (2, 24, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_newton_schulz_brings_singular_values_near_one(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    found = orthogonalize(torch.randn(shape).to(dtype))
    assert found.dtype == dtype
    values = torch.linalg.svdvals(found.float())
    assert values.min() > 0.6 and values.max() < 1.3


def test_norms_and_embeddings_have_no_weight_decay(model) -> None:
    parts = split_parameters(model)
    matrices = parts.matrices
    assert len(matrices) == 2 * 7 and len(parts.head) == 1 and not parts.embedding  # tied: counted once
    assert all(parameter.ndim == 1 for parameter in parts.rest)
    for name in ("adamw", "muon"):
        optimizer = make_optimizer(model, name, TrainConfig(), RATES)
        decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
        assert decayed == {id(parameter) for parameter in matrices}
        counted = [id(p) for group in optimizer.param_groups for p in group["params"]]
        assert len(counted) == len(set(counted)) == len(list(model.parameters()))
    names = dict(model.named_parameters())
    for_trainers_own = PackedTrainer.get_decay_parameter_names(None, model)  # type: ignore[arg-type]
    assert {id(names[name]) for name in for_trainers_own} == {id(parameter) for parameter in matrices}


ROLES = {
    "mixtral": {"experts.gate_up_proj", "experts.down_proj", "gate.weight", "q_proj.weight"},
    "qwen2_moe": {"experts.gate_up_proj", "shared_expert.down_proj.weight", "shared_expert_gate.weight"},
    "granitemoe": {"experts.down_proj"},
    "mamba": {"in_proj.weight", "x_proj.weight"},
    "gpt2": {"c_attn.weight", "c_fc.weight"},
}
NO_MATRICES = ("A_log", "bias", "norm", "conv1d", "wpe", "time_mix", ".D")


@pytest.mark.parametrize("family", [*ROLES, "gpt_oss", "rwkv"])
def test_what_multiplies_is_a_matrix_and_what_does_not_is_none(family: str) -> None:
    """Experts are 3-D and matrices; their biases, tables of positions and a state's decay are 2-D and aren't."""
    model = build(family)
    matrices = {id(parameter) for parameter in split_parameters(model).matrices}
    found = {name for name, parameter in model.named_parameters() if id(parameter) in matrices}
    assert not [name for name in found if any(word in name for word in NO_MATRICES)]
    for ending in ROLES.get(family, ()):
        assert any(name.endswith(ending) for name in found)
    decayed = {
        id(parameter)
        for group in make_optimizer(model, "adamw", TrainConfig(), RATES).param_groups
        if group["weight_decay"]
        for parameter in group["params"]
    }
    assert decayed == matrices


def test_muon_moves_each_expert_as_if_it_were_a_matrix_of_its_own() -> None:
    torch.manual_seed(0)
    stacked = torch.nn.Parameter(torch.randn(4, 16, 8))
    single = [torch.nn.Parameter(part.detach().clone()) for part in stacked]
    optimizers = [
        MuonAdamW([{"params": weights, "lr": 0.1, "muon": True, "weight_decay": 0.1}], betas=(0.9, 0.95))
        for weights in ([stacked], single)
    ]
    for _ in range(3):
        stacked.grad = torch.randn_like(stacked)
        for one, part in zip(single, stacked.grad, strict=True):
            one.grad = part.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(stacked, torch.stack(single))


def test_an_untied_embedding_has_a_rate_of_its_own(tmp_path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_model(tmp_path / "model", "llama"))
    for name in ("adamw", "muon"):
        optimizer = make_optimizer(model, name, TrainConfig(), RATES)
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        assert rates[id(model.get_input_embeddings().weight)] == RATES.embedding
        assert rates[id(model.get_output_embeddings().weight)] == RATES.main


@pytest.mark.parametrize("epsilon", [1e-8, 1e-2])
def test_muons_adamw_part_is_torchs_own(model, epsilon: float) -> None:
    torch.manual_seed(0)
    other = AutoModelForCausalLM.from_pretrained(model.name_or_path)
    muon = make_optimizer(model, "muon", TrainConfig(), RATES, epsilon=epsilon)
    adamw = make_optimizer(other, "adamw", TrainConfig(), RATES, epsilon=epsilon)
    assert {group["eps"] for group in muon.param_groups + adamw.param_groups} == {epsilon}
    for _ in range(3):
        for one, two in zip(model.parameters(), other.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            two.grad = one.grad.clone()
        muon.step()
        adamw.step()
    torch.testing.assert_close(model.get_input_embeddings().weight, other.get_input_embeddings().weight)


def test_muon_continues_exactly_from_its_saved_state(model) -> None:
    torch.manual_seed(0)
    optimizer = make_optimizer(model, "muon", TrainConfig(), RATES)
    gradients = [[torch.randn_like(parameter) for parameter in model.parameters()] for _ in range(4)]

    def steps(target, chosen, which) -> None:
        for index in which:
            for parameter, gradient in zip(target.parameters(), gradients[index], strict=True):
                parameter.grad = gradient.clone()
            chosen.step()

    steps(model, optimizer, (0, 1))
    other = AutoModelForCausalLM.from_pretrained(model.name_or_path)
    other.load_state_dict(model.state_dict())
    second = make_optimizer(other, "muon", TrainConfig(), RATES)
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(model, optimizer, (2, 3))
    steps(other, second, (2, 3))
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("schedule", "middle", "late"),
    [("linear", 0.5, 0.1), ("cosine", 0.5, 0.0245), ("wsd", 1.0, 0.2929), ("constant", 1, 1)],
)
def test_each_schedule_has_its_shape(schedule: str, middle: float, late: float) -> None:
    assert rate_factor(schedule, 0.0) == 1.0
    assert rate_factor(schedule, 0.5) == pytest.approx(middle)
    assert rate_factor(schedule, 0.9) == pytest.approx(late, abs=1e-3)
    assert rate_factor(schedule, 1.0, floor=0.1) == pytest.approx(1.0 if schedule == "constant" else 0.1)


def test_linear_after_warm_up_is_transformers_own_schedule() -> None:
    """The published script's rates: up to the peak in 10 steps, down to 0 at step 30; ours never begins at 0."""
    from transformers import get_linear_schedule_with_warmup

    rates = []
    for make in (
        lambda optimizer: get_linear_schedule_with_warmup(optimizer, 10, 30),
        lambda optimizer: make_scheduler(optimizer, "linear", 10, lambda step: step / 30, warmup_share=10 / 30),
    ):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler, found = make(optimizer), []
        for _ in range(30):
            found.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        rates.append(found)
    assert rates[1][10:] == pytest.approx(rates[0][10:])
    assert rates[1][:10] == pytest.approx([(step + 1) / 11 for step in range(10)]) and rates[0][0] == 0


def test_warm_up_reaches_the_peak_and_then_follows_whatever_progress_counts() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = make_scheduler(optimizer, "linear", 4, lambda step: min(1.0, step / 20))
    rates = []
    for _ in range(20):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates[0] == pytest.approx(0.2) and max(rates) == rates[4]
    assert rates == sorted(rates[:5]) + sorted(rates[5:], reverse=True)
    assert scheduler.get_last_lr()[0] == 0
