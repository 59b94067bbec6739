"""Several processes train as one would, and end together whatever happens to one of them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from pretrain_cli import processes
from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.config.model import TrainConfig
from pretrain_cli.errors import ConfigError, DataError, Interrupted
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.plan import make_plan
from pretrain_cli.training.processes.launch import first_failure, unheard_launcher, wanted_processes
from pretrain_cli.training.processes.signals import StoppedAtOnce, StopRequests
from pretrain_cli.training.rows.order import RowOrder
from tests.support.launching import (
    COMMON,
    STEPS,
    environment,
    furthest,
    losses,
    ptk,
    ranks,
    start,
    trained,
    validations,
    wait_for_step,
    words,
)
from tests.support.runs import record_of, weights_equal


@pytest.fixture(scope="module")
def one(rows: Artifacts) -> RunFolder:
    return trained(rows, "alone")


@pytest.fixture(scope="module")
def two(rows: Artifacts) -> RunFolder:
    return trained(rows, "pair", "--processes", "2")


# What follows from the environment


def test_srun_is_read_as_torchrun_would_say_it() -> None:
    step = {
        "SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
        "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "4711",
    }  # fmt: skip
    assert processes.slurm_variables(step) == {
        "RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8", "MASTER_ADDR": "gpu07",
        "MASTER_PORT": "24711",
    }  # fmt: skip
    second = {**step, "SLURM_STEP_ID": "1"}
    assert processes.slurm_variables(second)["MASTER_PORT"] != "24711"
    batch_script = {"SLURM_NTASKS": "16", "SLURM_PROCID": "0", "SLURM_JOB_ID": "4711"}
    assert processes.slurm_variables(batch_script) == {}
    assert processes.slurm_variables({**step, "RANK": "0"}) == {}


def test_each_process_gets_its_share_of_the_cores(monkeypatch) -> None:
    monkeypatch.setattr(processes, "available_cores", lambda: 16)
    assert processes.share_of_cores({"LOCAL_WORLD_SIZE": "8"}) == 2
    assert processes.share_of_cores({"LOCAL_WORLD_SIZE": "64"}) == 1
    assert processes.share_of_cores({"LOCAL_WORLD_SIZE": "8", "SLURM_CPUS_PER_TASK": "12"}) == 12
    assert processes.share_of_cores({"LOCAL_WORLD_SIZE": "8", "SLURM_CPUS_PER_TASK": "96"}) == 16  # all it is bound to
    within_a_job = {"LOCAL_WORLD_SIZE": "8", "SLURM_CPUS_PER_TASK": "12", "TORCHELASTIC_RUN_ID": "none"}
    assert processes.share_of_cores(within_a_job) == 2


@pytest.mark.parametrize(("own", "threads"), [("", "8"), ("1", "1")])
def test_torchruns_one_thread_gives_way_to_the_share_unless_a_user_asked_for_it(
    tmp_path, own: str, threads: str
) -> None:
    """torchrun sets OMP_NUM_THREADS=1 itself, in the environment of its children alone."""
    child = tmp_path / "child.py"
    child.write_text(
        "import os\nfrom pretrain_cli import processes\nprocesses.available_cores = lambda: 16\n"
        "processes.join_launcher()\nprint(os.environ['OMP_NUM_THREADS'])\n"
    )
    variables = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}
    launcher = (
        "import os, subprocess, sys\n"
        f"env = {{**os.environ, **{variables!r}}}; env.setdefault('OMP_NUM_THREADS', '1')\n"
        f"subprocess.run([sys.executable, {str(child)!r}], env=env, check=True)\n"
    )
    start = environment()
    start.pop("OMP_NUM_THREADS")
    start |= {"OMP_NUM_THREADS": own} if own else {}
    done = subprocess.run([sys.executable, "-c", launcher], env=start, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == threads


@pytest.mark.parametrize("asked", ["--num_processes 4", "--num-processes=4", "--config_file FILE"])
def test_what_accelerate_was_asked_for_is_read_in_any_spelling(asked: str, tmp_path, monkeypatch) -> None:
    file = tmp_path / "accelerate.yaml"
    file.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nmixed_precision: 'no'\nuse_cpu: true\n"
        "num_processes: 4\nmachine_rank: 0\nnum_machines: 1\ndebug: false\n"
    )
    line = ["accelerate", "launch", "--cpu", *asked.replace("FILE", str(file)).split(), "-m", "pretrain_cli", "train"]
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    parent = type("Parent", (), {"cmdline": lambda self: line})
    monkeypatch.setattr(psutil.Process, "parent", lambda self: parent())
    assert "asked for 4 processes and has started one" in unheard_launcher()
    line[:] = ["accelerate", "launch", "--cpu", "--num_processes", "1"]
    assert unheard_launcher() == ""


def test_more_processes_than_gpus_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H100")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert wanted_processes(TrainConfig()).value == 4 and wanted_processes(TrainConfig(processes=2)).value == 2
    assert wanted_processes(TrainConfig(processes=8, device="cpu")).value == 8
    with pytest.raises(ConfigError, match="8 processes need as many GPUs, and here are 4"):
        wanted_processes(TrainConfig(processes=8))


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("a1", "a1"), ("a1,b2", "a1"), ("n[003-010,12],x1", "n003"), ("n[1-2]-ib", "n1-ib"), ("", "127.0.0.1")],
)  # fmt: skip
def test_the_first_host_of_a_node_list(nodes: str, host: str) -> None:
    assert processes.first_host(nodes) == host


def test_any_number_of_processes_takes_the_same_rows_in_a_step() -> None:
    alone = RowOrder(37, 8, 20, seed=3).step(5, 1)
    for world, micro, accumulation in ((2, 4, 1), (2, 2, 2), (4, 1, 2), (8, 1, 1)):
        order = RowOrder(37, micro, 20, seed=3, world_size=world)
        assert order.step(5, accumulation) == alone
        shares = [
            [row for index in range(4 * accumulation, 5 * accumulation) for row in order.micro(index, rank)]
            for rank in range(world)
        ]
        assert sorted(row for share in shares for row in share) == sorted(alone)


def test_the_batch_in_tokens_stays_whatever_the_processes() -> None:
    train = TrainConfig(batch_tokens=2048, max_steps=10)
    for world in (1, 2, 4, 8):
        assert make_plan(Facts(100, 256, 512, 1e12, 8e9, world_size=world), train).batch_tokens == 2048
    with pytest.raises(ConfigError, match="8 rows, which 3 processes"):
        make_plan(Facts(100, 256, 512, 1e12, 8e9, world_size=3), train)


def test_of_several_failures_the_one_with_an_error_of_its_own_is_shown(tmp_path: Path) -> None:
    def end(code: int, moment: int) -> Any:
        return type("End", (), {"exitcode": code, "timestamp": moment})()

    def leave(rank: int, moment: float, kind: str, code: int, secondary: bool) -> None:
        fields = (rank, moment, kind, f"from {rank}", "", code, secondary)
        failure = processes.Failure(*fields)
        (tmp_path / f"rank-{rank}.json").write_text(json.dumps(failure.__dict__))

    leave(0, 1.0, "error", 1, True)
    killed = first_failure(tmp_path, {0: end(1, 2), 1: end(-9, 1)})
    assert killed.exit_code == 137 and "process 1" in killed.message and "SIGKILL" in killed.message
    silent = first_failure(tmp_path, {1: end(-15, 1), 2: end(7, 1), 3: end(-9, 1)})
    assert silent.exit_code == 7 and "process 2 ended with code 7" in silent.message
    assert first_failure(tmp_path, {1: end(-15, 1), 2: end(-11, 1)}).exit_code == 139
    assert first_failure(tmp_path, {0: end(1, 1)}).message == "from 0"
    leave(1, 2.0, "data", 3, False)
    own = first_failure(tmp_path, {0: end(1, 1), 1: end(3, 2)})
    assert (own.exit_code, own.message, own.kind) == (3, "from 1", "data")


# Two processes against one


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(one: RunFolder, two: RunFolder) -> None:
    assert furthest(one, two) < 1e-4
    assert record_of(two).world_size == 2 and record_of(two).plan.micro_batch == 4
    first, second = (validations(run) for run in (one, two))
    assert len(first) == 3 and first == pytest.approx(second, abs=1e-4)


@pytest.mark.slow
def test_torchrun_and_srun_are_noticed_and_rank_0_alone_speaks(rows: Artifacts, two: RunFolder) -> None:
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "pretrain_cli"]
    more = words(rows, "--run", "torchrun", *COMMON, "--json")
    done = subprocess.run([*line, *more], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == STEPS
    assert done.stderr.count("training: 50 steps") == 1 and weights_equal(rows.run("torchrun"), two)
    slurm = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost"}
    tasks = [start(rows, "--run", "srun", *COMMON, **slurm, SLURM_PROCID=rank, SLURM_LOCALID=rank) for rank in "01"]
    outputs = [task.communicate(timeout=120) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], outputs
    assert "50 steps" in outputs[0][0] and outputs[1] == ("", "")
    assert weights_equal(rows.run("srun"), two)


@pytest.mark.slow
def test_accelerate_starting_one_process_is_said(rows: Artifacts) -> None:
    line = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--cpu", "--num_processes", "2", "-m"]
    more = words(rows, "--run", "accelerate", *COMMON, "--max-steps", "2")
    done = subprocess.run([*line, "pretrain_cli", *more], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Warning: accelerate launch was asked for 2 processes and has started one" in done.stderr


@pytest.mark.slow
def test_a_killed_process_ends_all_and_a_resume_gives_the_undisturbed_weights(rows: Artifacts, two: RunFolder) -> None:
    run = rows.run("killed")
    process = start(rows, "--run", run.name, *COMMON, "--processes", "2")
    wait_for_step(run, random.Random().randrange(12, 45), process)
    ranks(process)[1].kill()
    killed = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - killed < 15 and process.returncode == 137
    lines = [line for line in err.splitlines() if line.startswith(("Error:", "Hint:"))]
    assert "process 1 was ended by SIGKILL" in lines[0] and "--resume" in lines[1] and len(lines) == 2
    assert "torch/distributed" not in err
    assert ptk(rows, "--resume", run.name, "--processes", "2")[0] == 0
    assert losses(run) == losses(two) and weights_equal(run, two)


@pytest.mark.slow
def test_a_killed_launcher_leaves_no_process_that_goes_on_writing(rows: Artifacts) -> None:
    run = rows.run("orphaned")
    process = start(rows, "--run", run.name, *COMMON, "--max-steps", "100000", "--processes", "2")
    wait_for_step(run, 5, process)
    children = ranks(process)
    process.kill()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert len(children) == 2 and alive == []
    size = run.metrics.stat().st_size
    time.sleep(0.5)
    assert run.metrics.stat().st_size == size
    process.communicate(timeout=20)


@pytest.mark.slow
def test_processes_that_are_orphaned_at_their_birth_end_too(rows: Artifacts) -> None:
    process = start(rows, "--run", "stillborn", *COMMON, "--processes", "2")
    while process.poll() is None and len(children := psutil.Process(process.pid).children()) < 2:
        time.sleep(0.002)
    process.kill()
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert not rows.run("stillborn").path.exists()
    process.communicate(timeout=20)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code", "count"), [(signal.SIGINT, 130, "1"), (signal.SIGTERM, 143, "4")])
def test_stopped_on_two_it_goes_on_on_one_and_on_four_at_the_exact_row(rows, one, number, code, count) -> None:
    run = rows.run(f"stopped-{code}")
    process = start(rows, "--run", run.name, *COMMON, "--processes", "2")
    wait_for_step(run, 15, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code and f"ptk train --resume {run.name}" in err
    result, _, said = ptk(rows, "--resume", run.name, "--processes", count)
    assert result == 0, said
    assert furthest(run, one) < 1e-4


@pytest.mark.slow
def test_a_warning_signal_to_one_of_two_processes_saves_on_both_and_training_continues(rows, one) -> None:
    run = rows.run("warned")
    process = start(rows, "--run", run.name, *COMMON, "--processes", "2", "--set", "train.on_sigusr1=continue")
    wait_for_step(run, 15, process)
    before = set(run.checkpoint_steps())
    ranks(process)[1].send_signal(signal.SIGUSR1)
    wait_for_step(run, 25, process)
    assert set(run.checkpoint_steps()) - before
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert furthest(run, one) < 1e-4


@pytest.fixture
def torn(tmp_path: Path) -> str:
    """A folder for PYTHONPATH that lets process 1 fail at its sixth batch."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('RANK') == '1':\n"
        "    import pretrain_cli.training.rows.feed as feed\n"
        "    from pretrain_cli.errors import DataError\n"
        "    take = feed.Feed.take\n"
        "    def fail(self, count):\n"
        "        if self._taken >= 5: raise DataError('Row 17 is torn.', 'Prepare again.')\n"
        "        return take(self, count)\n"
        "    feed.Feed.take = fail\n"
    )
    return str(tmp_path)


@pytest.mark.slow
def test_an_error_of_one_process_is_the_error_of_the_command(rows: Artifacts, torn: str) -> None:
    began = time.monotonic()
    code, out, err = ptk(rows, "--run", "torn", *COMMON, "--processes", "2", "--json", first=torn)
    assert code == DataError.exit_code and time.monotonic() - began < 60
    wanted = {"kind": "data", "message": "Row 17 is torn.", "hint": "Prepare again.", "exit_code": 3}
    assert json.loads(out)["error"] == wanted
    assert err.count("Error:") == 1 and record_of(rows.run("torn")).status == "failed"


def test_a_process_that_its_launcher_stops_after_another_has_failed_says_nothing(monkeypatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Interrupted) as caught, StopRequests(lambda text: None):
        with contextlib.suppress(StoppedAtOnce):  # as where it hits a finalizer, which swallows every error
            os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer")
    assert processes.report(caught.value, caught.value.__cause__) is None


@pytest.mark.slow
def test_under_torchrun_an_error_is_said_once_by_the_process_that_has_it(rows: Artifacts, torn: str, tmp_path) -> None:
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "pretrain_cli"]
    more = words(rows, "--run", "torn-again", *COMMON)
    done = subprocess.run([*line, *more], env=environment(first=torn), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("Error: ") - done.stderr.count("ChildFailedError: ") == 1, done.stderr
    assert "Error: Process 1: Row 17 is torn." in done.stderr
    nothing = [*line, "train", "--artifacts", str(tmp_path / "nothing")]
    done = subprocess.run(nothing, env=environment(), capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("Error: There is no prepared data") == 1, done.stderr


@pytest.mark.slow
def test_the_launcher_alone_says_what_all_processes_wait_for(rows: Artifacts) -> None:
    code, _, err = ptk(rows, "--run", "said-once", *COMMON, "--processes", "2", "--max-steps", "2", first="")
    lines = err.splitlines()
    assert code == 0 and "starting 2 processes" in lines
    assert lines.count("loading the libraries") == 1, err
    assert sum(line.startswith("W&B: ") for line in lines) <= 1, err


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"RANK": "abc"}, "The variable RANK is 'abc'"),
        ({"WORLD_SIZE": "x"}, "The variable WORLD_SIZE is 'x'"),
        ({"LOCAL_RANK": "1.5"}, "The variable LOCAL_RANK is '1.5'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "process 2 of 2"),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "y"}, "The variable RANK is 'y'"),
    ],
)
def test_a_launchers_variable_that_is_no_number_is_named(variables: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        processes.join_launcher(dict(variables))
    assert told in caught.value.message and "one process" in caught.value.hint


def test_variables_that_are_empty_or_somebody_elses_are_left_out() -> None:
    environ = {"RANK": "", "LOCAL_RANK": "-1", "WORLD_SIZE": " "}
    processes.join_launcher(environ)
    assert not environ
    environ = {"RANK": "captain", "WORLD_SIZE": "1"}
    processes.join_launcher(environ, trains=False)
    assert environ == {"WORLD_SIZE": "1"}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGTERM that a process can answer")
def test_a_process_that_waits_for_anothers_error_ends_quietly_by_its_launchers_signal(tmp_path) -> None:
    waits = subprocess.Popen(
        [sys.executable, "-m", "pretrain_cli", "train", "--debug", "--artifacts", str(tmp_path / "nothing")],
        env=environment() | {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert waits.stderr is not None
    said = ""
    while "DataError: " not in said:
        said += (line := waits.stderr.readline())
        assert line, said
    waits.terminate()
    rest = waits.communicate(timeout=60)[1]
    assert (waits.returncode, rest) == (143, "")
