"""An adapter that somebody else made is merged as it is meant, or refused before anything is computed for it."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pretrain_cli.artifacts import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Artifacts
from pretrain_cli.base import find_base
from pretrain_cli.errors import ModelError
from pretrain_cli.model.adapter_checks import is_simple_pattern
from pretrain_cli.model.build import base_location
from tests.support.tiny import make_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base and an adapter beside it, whose matrices aren't zero."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("made")
    base = make_model(folder / "base")
    torch.manual_seed(0)
    settings = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings)
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(str(folder / "adapter"))
    return folder


@pytest.fixture
def adapter(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "adapter", tmp_path / "adapter")


def merged(adapter: Path) -> Path:
    artifacts = Artifacts(adapter.parent / "artifacts")
    return Path(base_location(find_base(str(adapter), artifacts), artifacts))


def configure(adapter: Path, **values: Any) -> None:
    settings = json.loads((adapter / ADAPTER_CONFIG).read_text())
    (adapter / ADAPTER_CONFIG).write_text(json.dumps({**settings, **values}))


def test_a_whole_adapter_is_merged(adapter: Path, made: Path) -> None:
    before, after = (load_file(folder / "model.safetensors") for folder in (made / "base", merged(adapter)))
    changed = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"q_proj", "v_proj"}


@pytest.mark.parametrize("targets", [r".*\.(q_proj|v_proj)$", "q_proj|v_proj|.*q_proj|.*v_proj", r".*(?:q|v)_proj"])
def test_a_simple_pattern_of_layers_is_taken(adapter: Path, targets: str) -> None:
    configure(adapter, target_modules=targets)
    assert (merged(adapter) / "config.json").is_file()


@pytest.mark.parametrize(
    "values",
    [
        {"target_modules": r"(([a-z._0-9])+)+#"},
        {"target_modules": ".*" * 12 + "#"},
        {"target_modules": "(.|.)" * 40 + "#"},
        {"target_modules": ["q_proj", "(a|a)+"]},
        {"exclude_modules": r"(([a-z._0-9])+)+#"},
        {"rank_pattern": {r"(([a-z._0-9])+)+#": 2}},
        {"alpha_pattern": {r"(([a-z._0-9])+)+#": 2}},
        {"layers_to_transform": [0], "layers_pattern": [r"(([a-z._0-9])+)+#"]},
    ],
)
def test_a_pattern_that_may_take_for_ever_is_refused(adapter: Path, values: dict[str, Any]) -> None:
    configure(adapter, **values)
    begun = time.monotonic()
    with pytest.raises(ModelError, match=next(iter(reversed(values)))):
        merged(adapter)
    assert time.monotonic() - begun < 60


def test_simple_patterns_are_those_of_letters_dots_and_alternatives() -> None:
    assert all(map(is_simple_pattern, ("all-linear", "q_proj", r"model\.layers\.\d+\.mlp\.(up|down)_proj", "a|b")))
    assert not any(map(is_simple_pattern, ("(a+)+", "(a|b)*", "a{9}", "(", ")", "[a-z]+", "(?=a)", r"(a)\1")))


@pytest.mark.parametrize(
    "values", [{"r": 100_000_000}, {"rank_pattern": {"q_proj": 100_000_000}}, {"r": 4}, {"r": "abc"}, {"r": -1}]
)
def test_a_rank_that_the_matrices_do_not_have_is_refused_before_memory_is_taken(
    adapter: Path, values: dict[str, Any]
) -> None:
    configure(adapter, **values)
    with pytest.raises(ModelError, match="isn't what adapter_config"):
        merged(adapter)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda name: name.replace("q_proj", "wq"), "lacks"),
        (lambda name: name.replace("base_model.model.", "net."), "lacks"),
        (lambda name: "" if "lora_B" in name else name, "lacks"),
        (lambda name: "" if "layers.0" in name else name, "lacks"),
    ],
)
def test_matrices_under_other_names_or_missing_are_refused(adapter: Path, change: Any, told: str) -> None:
    tensors = load_file(adapter / ADAPTER_WEIGHTS)
    save_file({new: tensor for name, tensor in tensors.items() if (new := change(name))}, adapter / ADAPTER_WEIGHTS)
    with pytest.raises(ModelError, match=told):
        merged(adapter)


@pytest.mark.parametrize("extra", ["base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight", "notes"])
def test_a_matrix_too_many_is_refused(adapter: Path, extra: str) -> None:
    tensors = load_file(adapter / ADAPTER_WEIGHTS)
    save_file({**tensors, extra: torch.ones(2, 2)}, adapter / ADAPTER_WEIGHTS)
    with pytest.raises(ModelError, match="doesn't describe"):
        merged(adapter)


def test_an_adapter_that_leads_back_to_itself_is_refused(adapter: Path) -> None:
    configure(adapter, base_model_name_or_path=str(adapter))
    with pytest.raises(ModelError, match="names itself"):
        merged(adapter)
    other = shutil.copytree(adapter, adapter.parent / "other")
    configure(adapter, base_model_name_or_path=str(other))
    with pytest.raises(ModelError, match="names itself"):
        merged(adapter)
    configure(adapter, base_model_name_or_path=None)
    with pytest.raises(ModelError, match="names no base"):
        merged(adapter)


@pytest.mark.parametrize(
    "values",
    [
        *({"peft_type": "PREFIX_TUNING"}, {"layer_replication": [[0, 1]] * 9}, {"megatron_config": {"a": 1}}),
        *({"init_lora_weights": "pissa_niter_1000000000"}, {"init_lora_weights": 5}, {"init_lora_weights": "x"}),
        *({"loftq_config": {"loftq_iter": 10**9}}, {"loftq_config": [1]}),
    ],
)
def test_an_adapter_of_another_kind_is_refused(adapter: Path, values: dict[str, Any]) -> None:
    configure(adapter, **values)
    with pytest.raises(ModelError, match="merged"):
        merged(adapter)
