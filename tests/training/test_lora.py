"""A run with LoRA has everything that a full run has, and leaves an adapter and a merged model."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.errors import ConfigError, DataError
from pretrain_cli.evaluation.run import evaluate
from pretrain_cli.exporting.run import export
from pretrain_cli.training.measuring.range_test import find_learning_rate
from pretrain_cli.training.run import train
from tests.support.children import nursery
from tests.support.launching import ptk
from tests.support.runs import Heard, PowerCut, course, cut, prepare_text, record_of, small, weights_equal
from tests.support.tiny import make_model

IDS = torch.arange(24)[None] * 7 % 300
LORA: dict[str, Any] = {
    "model__size": "auto", "model__layers": None, "train__method": "lora", "train__lora_rank": 4, "train__max_steps": 6,
    "train__save_steps": 2, "train__eval_steps": 3, "train__sample_prompts": ["Call me"], "train__lora_dropout": 0.1,
}  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory, prose: str, base: Path) -> Artifacts:
    folder = tmp_path_factory.mktemp("lora")
    return prepare_text(folder, prose[:24_000], model__base=str(base), tokenizer__vocab_size="auto")


@pytest.fixture(scope="module")
def whole(artifacts: Artifacts) -> RunFolder:
    train(small(**LORA), artifacts, run_name="whole")
    return artifacts.run("whole")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


def test_adapter_and_model_open_without_ptk_and_write_alike(whole: RunFolder, base: Path) -> None:
    from peft import PeftModel

    merged = logits(AutoModelForCausalLM.from_pretrained(whole.model))
    plain = AutoModelForCausalLM.from_pretrained(base)
    before = logits(plain)
    beside = logits(PeftModel.from_pretrained(plain, whole.adapter))
    assert torch.allclose(merged, beside, atol=1e-4) and not torch.allclose(merged, before, atol=1e-2)
    assert {file.name for file in whole.adapter.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}


def test_the_base_does_not_move_and_checkpoints_hold_the_adapter_only(whole: RunFolder, base: Path) -> None:
    before, after = load_file(base / "model.safetensors"), load_file(whole.model / "model.safetensors")
    same = {name for name in before if (before[name] == after[name]).all()}
    assert {name for name in before if "proj" not in name} <= same and not all(
        "proj" in n and n in same for n in before
    )
    names = {file.name for file in whole.checkpoint(6).iterdir()}
    assert "adapter_model.safetensors" in names and "model.safetensors" not in names
    record = record_of(whole)
    assert record.plan is not None and record.plan.method == "lora" and record.plan.lora_rank == 4
    assert "method lora of rank 4: as asked" in record.choices and whole.samples.is_file()


def test_a_resume_is_exact(artifacts: Artifacts, whole: RunFolder) -> None:
    with pytest.raises(PowerCut):
        train(small(**LORA), artifacts, Heard(step_5=cut), run_name="cut")
    train(Config(), artifacts, resume="cut")
    run = artifacts.run("cut")
    assert course(run) == course(whole) and weights_equal(run, whole)
    one, other = (load_file(each.adapter / "adapter_model.safetensors") for each in (run, whole))
    assert all((one[name] == other[name]).all() for name in one)


@pytest.mark.skipif(sys.platform != "linux", reason="forks and looks into /proc")
def test_a_kill_leaves_no_trace(artifacts: Artifacts, whole: RunFolder) -> None:
    run = artifacts.run("killed")
    with nursery() as children:
        children.start(artifacts, LORA, run_name=run.name)
        while children.running() and len(run.checkpoint_steps()) < 2:
            time.sleep(0.005)
        children.kill()
        children.wait()
    train(Config(), artifacts, resume=run.name)
    assert course(run) == course(whole) and weights_equal(run, whole)


def test_another_base_is_refused_on_a_resume(tmp_path: Path, artifacts: Artifacts, base: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(base, own)
    with pytest.raises(PowerCut):
        train(small(**LORA, model__base=str(own)), artifacts, Heard(step_5=cut), run_name="moved")
    other = make_model(tmp_path / "other", seed=1)
    shutil.copyfile(other / "model.safetensors", own / "model.safetensors")
    with pytest.raises(DataError, match="base weights") as caught:
        train(Config(), artifacts, resume="moved")
    assert "base" in caught.value.hint


def test_two_processes_train_what_one_does(artifacts: Artifacts) -> None:
    words = [
        "--method", "lora", "--set", "train.lora_rank=4", "--device", "cpu", "--precision", "fp32", "--max-steps", "4",
        "--batch-tokens", "256", "--set", "tracking.report_to=none", "--set", "train.threads=1",
        "--set", "train.early_stopping=0",
    ]  # fmt: skip
    for name, more in (("one", []), ("two", ["--processes", "2"])):
        code, _, err = ptk(artifacts, "--run", name, *words, *more)
        assert code == 0, err
    one, two = ([line["loss"] for line in course(artifacts.run(name))] for name in ("one", "two"))
    assert one == pytest.approx(two, abs=1e-4)
    one_weights, two_weights = (load_file(artifacts.run(name).model / "model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(one_weights[name], two_weights[name], atol=1e-4) for name in one_weights)


def test_a_checkpoint_is_evaluated_and_exported_without_its_base_being_named(
    artifacts: Artifacts, whole: RunFolder, tmp_path: Path
) -> None:
    config = changed(Config(), evaluate__on=["validation"], evaluate__sample=2000, evaluate__samples=0)
    report = evaluate(config, artifacts, models=["whole", "whole@step-000006", "base"])
    last, checkpoint, before = (model.texts[0].bits_per_byte for model in report.models[:3])
    assert last == pytest.approx(checkpoint, abs=1e-4) and last < before
    exported = export(artifacts, run="whole", output=tmp_path / "exported")
    assert (exported.path / "model.safetensors").is_file()
    assert not any("adapter" in file.name for file in exported.files)


def test_an_adapter_is_a_base(whole: RunFolder, tmp_path: Path, prose: str) -> None:
    rows = prepare_text(tmp_path, prose[:9_000], model__base=str(whole.adapter), tokenizer__vocab_size="auto")
    train(small(**{**LORA, "train__max_steps": 1, "train__lora_dropout": 0.0}), rows, run_name="next")
    first = course(rows.run("next"))[0]["loss"]
    assert first < 8 and record_of(rows.run("next")).base == str(whole.adapter)


@pytest.mark.parametrize(
    "variant", [{"train__dora": True}, {"train__rslora": True}, {"train__lora_targets": ["q_proj"]}]
)
def test_variants_train_and_merge(artifacts: Artifacts, base: Path, variant: dict[str, Any]) -> None:
    from peft import PeftModel

    name = next(iter(variant)).rpartition("_")[2]
    train(small(**{**LORA, "train__lora_dropout": 0.0, "train__max_steps": 3}, **variant), artifacts, run_name=name)
    run = artifacts.run(name)
    beside = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), run.adapter)
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(run.model)), logits(beside), atol=1e-4)


def test_a_layer_that_is_not_there_is_named(artifacts: Artifacts) -> None:
    with pytest.raises(ConfigError, match="'queries'") as caught:
        train(small(**LORA, train__lora_targets=["queries"]), artifacts, run_name="queries")
    assert "q_proj" in caught.value.hint


def test_activations_computed_again_change_nothing(artifacts: Artifacts, whole: RunFolder) -> None:
    again = {**LORA, "train__gradient_checkpointing": True, "train__lora_dropout": 0.0, "train__save_steps": 0}
    plain = {**again, "train__gradient_checkpointing": False}
    for name, settings in (("again", again), ("plain", plain)):
        train(small(**settings), artifacts, run_name=name)
    one, two = ([line["loss"] for line in course(artifacts.run(name))] for name in ("again", "plain"))
    assert one == pytest.approx(two, abs=1e-5)


def test_chunked_and_whole_loss_agree(artifacts: Artifacts) -> None:
    settings = {**LORA, "train__lora_dropout": 0.0, "train__save_steps": 0}
    for chunked in (True, False):
        train(small(**settings, train__chunked_loss=chunked), artifacts, run_name=f"chunked-{chunked}")
    one, two = ([line["loss"] for line in course(artifacts.run(f"chunked-{on}"))] for on in (True, False))
    assert one == pytest.approx(two, abs=1e-5)


def test_early_stopping_takes_the_best_adapter(artifacts: Artifacts) -> None:
    overshoots = {
        **LORA, "train__max_steps": 40, "train__eval_steps": 2, "train__save_steps": "auto",
        "train__early_stopping": 2, "train__learning_rate": 0.5, "train__schedule": "constant",
    }  # fmt: skip
    result = train(small(**overshoots), artifacts, run_name="early")
    run = artifacts.run("early")
    assert result.model_step is not None and result.model_step < result.steps
    kept, own = (
        load_file(folder / "adapter_model.safetensors") for folder in (run.checkpoint(result.model_step), run.adapter)
    )
    assert all((kept[name] == own[name]).all() for name in own)


def test_the_range_test_finds_a_rate(artifacts: Artifacts) -> None:
    found = find_learning_rate(small(**{**LORA, "train__save_steps": "auto"}), artifacts)
    assert found.planned == pytest.approx(1e-3) and min(found.losses) < found.losses[0]


def test_four_bits_train_and_end_as_a_plain_model(artifacts: Artifacts, base: Path) -> None:
    from peft import PeftModel

    heard = Heard()
    settings = {**LORA, "train__method": "qlora"}
    train(small(**settings), artifacts, heard, run_name="four")
    with pytest.raises(PowerCut):
        train(small(**settings), artifacts, Heard(step_5=cut), run_name="four-cut")
    train(Config(), artifacts, resume="four-cut")
    run = artifacts.run("four")
    assert course(run) == course(artifacts.run("four-cut")) and weights_equal(run, artifacts.run("four-cut"))
    beside = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), run.adapter)
    model = AutoModelForCausalLM.from_pretrained(run.model)
    assert torch.allclose(logits(model), logits(beside), atol=1e-4) and model.dtype == torch.float32
    assert any("4 bits" in note for note in heard.notes)
