"""Libraries that are installed but fail to import are left out with one line, and named where they were asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pretrain_cli import optional
from pretrain_cli.config.model import TrainConfig
from pretrain_cli.errors import MissingDependencyError
from pretrain_cli.training.choices import kernels as module
from pretrain_cli.training.choices.compilation import choose_compile
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.kernels import Attended, Hardware, Kernels, choose_kernels, hardware_of
from pretrain_cli.training.choices.machine import Machine
from pretrain_cli.training.choices.plan import make_plan

SYMBOL = "flash_attn_2_cuda.so: undefined symbol: _ZN3c104cuda9SetDeviceEab"
BROKEN = {
    "flash_attn": f"raise ImportError({SYMBOL!r})",
    "liger_kernel": "raise OSError('libcuda.so.1: cannot open shared object file')",
    "torchao": "raise RuntimeError('built for another torch\\nand more')",
    "triton": "import something_that_is_not_there",
}


@pytest.fixture
def broken(tmp_path: Path, monkeypatch, gpus) -> Hardware:
    """An H100, whose libraries were built for another torch."""
    for name, code in BROKEN.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)  # torch's CUDA build has imported triton
    monkeypatch.syspath_prepend(str(tmp_path))
    optional.fault_of.cache_clear()
    gpus(1)
    monkeypatch.setattr(module, "c_compiler", lambda: True)
    yield hardware_of("cuda")
    optional.fault_of.cache_clear()


def chosen(hardware: Hardware, masked: bool = False, **train: Any) -> Kernels:
    return choose_kernels(hardware, TrainConfig(**train), "llama", 2e9, Attended(masked))


def test_each_is_left_out_and_one_line_says_why(broken: Hardware) -> None:
    found = chosen(broken)
    assert (found.attention.value, found.liger.value, found.fp8.value) == (module.VARLEN, False, False)
    assert "undefined symbol" in found.reasons["attention"] and "libcuda.so.1" in found.reasons["liger"]
    assert "built for another torch" in found.reasons["fp8"] and "and more" not in found.reasons["fp8"]
    assert all("\n" not in reason for reason in found.reasons.values())
    over_documents = chosen(broken, masked=True)
    assert over_documents.attention.value == module.VARLEN and "undefined symbol" in over_documents.reasons["attention"]


@pytest.mark.parametrize("setting", [{"attention": "flash"}, {"liger": True}, {"fp8": True}])
def test_what_was_asked_for_is_named_with_its_fault(broken: Hardware, setting: dict[str, Any]) -> None:
    with pytest.raises(MissingDependencyError, match="installed but can't be imported") as caught:
        chosen(broken, **setting)
    assert "fits this torch" in caught.value.hint


def test_nothing_is_compiled_where_triton_is_broken(broken: Hardware) -> None:
    facts = Facts(train_rows=9000, sequence_length=256, vocab_size=4096, flops=1e14, memory_bytes=8e10, on_cpu=False)
    plan = make_plan(facts, TrainConfig(max_steps=9))
    assert not choose_compile("auto", Machine("cuda", "bf16"), plan, 1e6, processes=1).value.on


def test_amds_gpus_take_nothing_that_is_nvidias(broken: Hardware, monkeypatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.4")
    hardware = hardware_of("cuda")
    assert hardware.kind == "rocm"
    found = chosen(hardware)
    assert (found.attention.value, found.liger.value, found.fp8.value) == (module.VARLEN, False, False)


def test_intels_gpus_train_under_their_own_name(monkeypatch) -> None:
    assert hardware_of("xpu").kind == "xpu" and chosen(hardware_of("xpu")).reasons == {}
