"""Threads, workers and compiling follow from what the machine shows, and trouble with them is said."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.data.rows.batches import PackedDataset
from pretrain_cli.heap import keep_freed_memory
from pretrain_cli.model import devices
from pretrain_cli.storage import read_json
from pretrain_cli.training.choices import compilation as compiling
from pretrain_cli.training.choices.compilation import CompiledBody, choose_compile
from pretrain_cli.training.choices.compile_memory import WARM_SHARE, CompileCost, compile_key, recall, remember
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.machine import Machine
from pretrain_cli.training.choices.plan import make_plan
from pretrain_cli.training.choices.workers import choose_workers
from pretrain_cli.training.measuring.busy import NEWEST, USUAL, BusyWatch
from pretrain_cli.training.measuring.validation import Validator
from pretrain_cli.training.rows import feed
from pretrain_cli.training.run import train
from pretrain_cli.training.trainer import PackedTrainer
from tests.support.runs import Heard, PowerCut, course, cut, record_of, small, weights_equal


def test_a_busy_core_leaves_one_thread_of_two(monkeypatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(devices, "available_cores", lambda: 2)
    assert devices.choose_threads("auto", busy_cores=0.1).value == 2
    busy = devices.choose_threads("auto", busy_cores=1.1)
    assert busy.value == 1 and "1.1 of 2 cores" in busy.reason
    assert devices.choose_threads(2, busy_cores=1.1).value == 2


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_memory_that_a_step_freed_serves_the_next_one() -> None:
    import resource

    if not keep_freed_memory():
        pytest.skip("another C library")
    pages = 4 * (16 << 20) // resource.getpagesize()

    def step() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [torch.ones(4 << 20) for _ in range(4)]
        del blocks
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    # Elsewhere in the process a block may be taken from what was kept: most steps find all of it again.
    assert sorted(step() for _ in range(9))[4] < pages // 2


def test_steps_that_become_slow_on_a_busy_machine_are_said_once() -> None:
    said: list[str] = []
    watch = BusyWatch(2, said.append, others=lambda: 1.0)
    for seconds in [0.1] * USUAL + [0.9] + [0.1] * 5 + [0.9] * 3 * NEWEST:
        watch.look(seconds)
    assert len(said) == 1 and "9.0 times" in said[0] and "train.threads=1" in said[0]


def test_slow_steps_of_a_quiet_machine_or_of_one_thread_are_not_blamed_on_others() -> None:
    said: list[str] = []
    for watch in (BusyWatch(2, said.append, others=lambda: 0.1), BusyWatch(1, said.append, others=lambda: 1.0)):
        for seconds in [0.1] * USUAL + [0.9] * NEWEST:
            watch.look(seconds)
    assert not said


def test_workers_come_where_a_batch_takes_long_against_a_step(rows) -> None:
    dataset = PackedDataset(rows.train_rows, mask_documents=True)
    assert choose_workers("auto", dataset, 4, micro_seconds=10.0).value == 0
    many = choose_workers("auto", dataset, 4, micro_seconds=1e-6)
    assert many.value >= 1 and "ms to make" in many.reason
    assert choose_workers(3, dataset, 4, micro_seconds=10.0).value == 3


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["dies", "hangs", "can't start"])
def test_a_worker_in_trouble_costs_a_warning_and_no_step(rows, monkeypatch, trouble: str) -> None:
    """The same rows come in the same order, made without workers from there on."""
    parent, plain = os.getpid(), PackedDataset.__getitems__
    made = {"count": 0}

    def sick(self, indices):
        made["count"] += 1
        if os.getpid() != parent and made["count"] == 2:
            os.kill(os.getpid(), signal.SIGKILL) if trouble == "dies" else time.sleep(60)
        return plain(self, indices)

    if trouble == "can't start":
        monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
    else:
        monkeypatch.setattr(PackedDataset, "__getitems__", sick)
        monkeypatch.setattr(feed, "HANG_SECONDS", 2)
    heard = Heard()
    result = train(small(train__max_steps=5, train__workers=1), rows, heard)
    assert result.status == "finished"
    assert sum("workers failed" in text for text in heard.warnings) == 1
    monkeypatch.undo()
    calm = train(small(train__max_steps=5), rows)
    assert course(rows.run(result.run)) == course(rows.run(calm.run))


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["step", "validation"])
def test_a_worker_that_is_killed_while_nobody_waits_for_it_costs_a_warning(rows, monkeypatch, moment: str) -> None:
    """As the kernel does where memory is short: in the middle of a step or a validation."""
    owner, name = (PackedTrainer, "training_step") if moment == "step" else (Validator, "run")
    plain, make = getattr(owner, name), feed.Feed.__init__
    feeds: list[feed.Feed] = []
    killed: list[int] = []

    def during(self, *words, **keywords):
        if not killed and self.attempt.state.step == 2:
            process = feeds[-1]._batches._workers[0]
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process.pid)
            process.join()
            time.sleep(0.1)  # the signal of its death is here
        return plain(self, *words, **keywords)

    def noted(self, *words):
        feeds.append(self)
        make(self, *words)

    monkeypatch.setattr(feed.Feed, "__init__", noted)
    monkeypatch.setattr(owner, name, during)
    heard = Heard()
    result = train(small(train__max_steps=6, train__eval_steps=2, train__workers=1), rows, heard)
    assert killed and result.status == "finished"
    assert sum("workers failed" in text for text in heard.warnings) == 1
    monkeypatch.undo()
    calm = train(small(train__max_steps=6, train__eval_steps=2), rows)
    assert course(rows.run(result.run)) == course(rows.run(calm.run))


def refuse(self):
    raise OSError("this platform can't fork")


def plan_of(**train: object):
    facts = Facts(train_rows=9000, sequence_length=256, vocab_size=4096, flops=190e9, memory_bytes=8e9)
    return make_plan(facts, TrainConfig(**train))


def test_compiling_waits_for_runs_that_pay_for_it(monkeypatch) -> None:
    monkeypatch.setattr(compiling.shutil, "which", lambda _: "/usr/bin/g++")
    machine, plan = Machine("cpu", "fp32"), plan_of(max_minutes=5)
    assert choose_compile("auto", machine, plan, 300).value.on
    assert not choose_compile("auto", machine, plan, 30).value.on
    assert not choose_compile("auto", machine, plan_of(max_steps=5, gradient_checkpointing=True), 300).value.on
    assert choose_compile(True, machine, plan, 1).value.on and not choose_compile(False, machine, plan, 9000).value.on
    monkeypatch.setattr(compiling.shutil, "which", lambda _: None)
    assert "no compiler" in choose_compile("auto", machine, plan, 300).reason


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for the compiler's output."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def test_what_compiling_took_and_gave_decides_the_next_time(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling.shutil, "which", lambda _: "/usr/bin/g++")
    machine, plan = Machine("cpu", "fp32"), plan_of(max_minutes=5)

    def on(key: str, seconds: float) -> bool:
        return choose_compile("auto", machine, plan, seconds, key=key).value.on

    assert not on("a", 60)
    remember("a", 30.0, 1.5)
    assert recall("a") == CompileCost(WARM_SHARE * 30, 1.5, warm=True, known=True)
    assert on("a", 60) and not on("a", 40)  # a third of 60 s against 15 s, with a margin
    remember("a", 4.0, 1.5)
    assert on("a", 20) and "measured here before" in choose_compile("auto", machine, plan, 20, key="a").reason
    remember("b", 80.0, 0.98)
    assert not on("b", 9000) and "no faster" in choose_compile("auto", machine, plan, 9000, key="b").reason
    assert recall("c").first_s == 80.0  # another model's first time is taken to be as long as the longest here
    shutil.rmtree(cache)
    assert not recall("a").known


@pytest.mark.parametrize("content", ["", "[]", '{"models": {"a": 3}}', '{"models": {"a": {"cold_s": "x", "gain": 1}}}'])
def test_a_damaged_memory_of_compiling_is_none(cache: Path, content: str) -> None:
    (cache / "ptk-compiled.json").write_text(content)
    assert recall("a") == CompileCost()
    remember("a", 1.0, 2.0)
    assert recall("a").known


def test_the_key_names_what_the_compiled_code_follows_from() -> None:
    model = Qwen3Config(num_hidden_layers=2, hidden_size=64, vocab_size=1000)
    wider = Qwen3Config(num_hidden_layers=2, hidden_size=128, vocab_size=1000)
    cpu = Machine("cpu", "fp32")
    keys = [
        compile_key(model, cpu, 8, 256, masked=True),
        compile_key(wider, cpu, 8, 256, masked=True),
        compile_key(model, Machine("cpu", "bf16"), 8, 256, masked=True),
        compile_key(model, cpu, 4, 256, masked=True),
        compile_key(model, cpu, 8, 128, masked=True),
        compile_key(model, cpu, 8, 256, masked=False),
    ]
    assert len(set(keys)) == len(keys)
    again = Qwen3Config(num_hidden_layers=2, hidden_size=64, vocab_size=1000)
    assert keys[0] == compile_key(again, cpu, 8, 256, masked=True)


@pytest.mark.slow
def test_a_compiler_that_fails_costs_a_warning() -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("no header\nmany more lines")

    class Model:
        base_model = staticmethod(lambda **inputs: inputs["x"] + 1)

    said: list[str] = []
    body = CompiledBody(Model, said.append)
    body._compiled = broken
    assert body(x=1) == 2 and body(x=2) == 3 and body.failed
    assert len(said) == 1 and "no header" in said[0]


@pytest.mark.slow
def test_a_compiled_run_resumes_to_the_same_weights(rows) -> None:
    """Compiling again gives the same arithmetic, and the choice is kept in the run's config."""
    settings = {"train__max_steps": 6, "train__save_steps": 2, "train__compile": True}
    heard = Heard()
    train(small(**settings), rows, heard, run_name="compiled")
    assert not heard.warnings and record_of(rows.run("compiled")).compiled is True
    with pytest.raises(PowerCut):
        train(small(**settings), rows, Heard(step_5=cut), run_name="compiled-cut")
    torch._dynamo.reset()
    train(small(), rows, resume="compiled-cut")
    assert course(rows.run("compiled")) == course(rows.run("compiled-cut"))
    assert weights_equal(rows.run("compiled"), rows.run("compiled-cut"))


@pytest.mark.slow
def test_a_compiled_run_is_remembered_and_its_cache_is_kept(rows, cache: Path) -> None:
    torch._dynamo.reset()
    train(small(train__max_steps=12, train__compile=True), rows, run_name="remembered")
    kept = read_json(cache / "ptk-compiled.json")["models"]
    assert [*next(iter(kept.values()))] == ["cold_s", "gain"] and len(kept) == 1
    torch._dynamo.reset()
    train(small(train__max_steps=12, train__compile=True), rows, run_name="remembered-again")
    (again,) = read_json(cache / "ptk-compiled.json")["models"].values()
    assert again.keys() == {"cold_s", "warm_s", "gain"}
