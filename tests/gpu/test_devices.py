"""Which GPU a training takes, where there are several, and where a process sees only its own."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.errors import ConfigError
from pretrain_cli.model.devices import check_processes, choose_device
from pretrain_cli.training.arguments import make_arguments
from pretrain_cli.training.choices.kernels import hardware_of
from pretrain_cli.training.choices.machine import Machine, choose_machine
from pretrain_cli.training.context import open_unrecorded
from pretrain_cli.training.processes import agreement
from pretrain_cli.training.processes.launch import wanted_processes
from tests.support.runs import small


@pytest.fixture(autouse=True)
def accelerate_as_before():
    """accelerate keeps its device for the whole process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("number", [0, 1])
def test_training_runs_on_the_gpu_that_was_asked_for(rows, gpus, number: int) -> None:
    context = open_unrecorded(small(train__max_steps=2), rows)
    there = gpus(2)
    asked = replace(context, machine=Machine(f"cuda:{number}", "fp32"))
    arguments = make_arguments(asked, [])
    assert arguments.device == torch.device("cuda", number) and arguments.n_gpu == 1
    assert PartialState().device == Accelerator().device == torch.device("cuda", number)
    assert there.current == number


def test_a_numbered_gpu_is_the_current_one_before_anything_is_measured_on_it(gpus, monkeypatch) -> None:
    there = gpus(4)
    machine = choose_machine(TrainConfig(device="cuda:3", precision="bf16"), None, lambda name, choice: None)
    assert there.current == 3 and machine.device == "cuda:3" and machine.free_bytes == there.free
    asked: list[object] = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: asked.append(device) or (9, 0))
    hardware_of(machine.device)
    assert asked == ["cuda:3"]


def test_a_gpu_that_is_not_there_is_refused_by_its_number(gpus) -> None:
    gpus(2)
    assert choose_device("cuda:1").value == "cuda:1"
    with pytest.raises(ConfigError, match="no device 'cuda:2': this machine has 2 GPUs"):
        choose_device("cuda:2")


def test_several_processes_do_not_share_a_numbered_gpu(gpus) -> None:
    gpus(2)
    with pytest.raises(ConfigError, match="'cuda:1' is one GPU") as refused:
        wanted_processes(TrainConfig(device="cuda:1", processes=2))
    assert "CUDA_VISIBLE_DEVICES" in refused.value.hint
    assert wanted_processes(TrainConfig(device="cuda:1")).value == 1
    assert wanted_processes(TrainConfig(device="cuda")).value == 2
    check_processes("cpu", 8)


@pytest.mark.parametrize(("visible", "numbers"), [(1, [0, 0, 0, 0]), (4, [0, 1, 2, 3])])
def test_ddp_gets_the_gpu_that_the_process_sees(gpus, monkeypatch, visible: int, numbers: list[int]) -> None:
    """srun --gpus-per-task=1 shows each task one GPU, as number 0; torchrun shows every process all of them."""
    there = gpus(visible)
    joined: list[str] = []
    monkeypatch.setattr(agreement, "world_size", lambda: 4)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout: joined.append(backend))
    monkeypatch.setattr(dist, "new_group", lambda **keywords: None)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda *words: 4)
    given: list[object] = []

    class Recorded(torch.nn.Module):
        def __init__(self, module, device_ids, output_device, **keywords):
            super().__init__()
            given.append((device_ids, output_device))

    monkeypatch.setattr(torch.nn.parallel, "DistributedDataParallel", Recorded)
    monkeypatch.setattr("accelerate.state.check_cuda_p2p_ib_support", lambda: True)
    for rank, number in enumerate(numbers):
        monkeypatch.setattr(dist, "get_rank", lambda *words, rank=rank: rank)
        for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 4}.items():
            monkeypatch.setitem(os.environ, name, str(value))
        AcceleratorState._reset_state(reset_partial_state=True)
        with agreement.together("cuda"):
            accelerator = Accelerator()
            assert accelerator.device == torch.device("cuda", number) and there.current == number
            accelerator.prepare_model(torch.nn.Linear(2, 2), device_placement=False)
        assert given[-1] == ([number], number)
    assert set(joined) == {"cpu:gloo,cuda:nccl"}
