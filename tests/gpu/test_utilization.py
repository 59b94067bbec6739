"""MFU as published figures have it, where the device's data sheet is known; the measured product beside it."""

from __future__ import annotations

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from pretrain_cli.model.accelerators import ACCELERATORS, sheet_of
from pretrain_cli.storage import read_lines
from pretrain_cli.training.choices.machine import Machine
from pretrain_cli.training.measuring.forecast import flops_per_token, published_flops_per_token
from pretrain_cli.training.run import train
from tests.support.families import SIZES
from tests.support.runs import record_of, small


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-PCIE-40GB", "a100-40"),
        ("Tesla V100-SXM2-32GB", "v100"),
        ("Tesla T4", "t4"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("AMD Instinct MI300X OAM", "mi300x"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A10G", None),
        ("NVIDIA H100 NVL", None),
        ("Tesla V100-PCIE-16GB", None),
    ],
)
def test_a_data_sheet_is_found_by_the_whole_name_of_a_device(device: str, name: str | None) -> None:
    found = sheet_of(device)
    assert (found.name if found else None) == name


def test_the_sheets_peak_is_that_of_the_precision(gpus) -> None:
    gpus(1, name="NVIDIA A100-SXM4-80GB")
    assert Machine("cuda:0", "bf16").sheet_flops() == 312e12
    assert Machine("cuda:0", "fp32").sheet_flops() == 19.5e12
    gpus(1)
    assert Machine("cuda:0", "bf16").sheet_flops() == 0 and Machine("cpu", "fp32").sheet_flops() == 0


def test_published_figures_count_attention_to_every_token() -> None:
    """PaLM's formula: 6 a weight, and 12 a layer, head, width of a head and token of the row."""
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3", **SIZES, head_dim=16))
    weights = model.num_parameters() - model.get_input_embeddings().weight.numel()
    assert published_flops_per_token(model, 64) == 6 * weights + 12 * 2 * (4 * 16) * 64
    assert flops_per_token(model, 64) < published_flops_per_token(model, 64)


def test_a_line_has_both_shares_where_the_sheet_is_known_and_one_where_it_is_not(rows, monkeypatch) -> None:
    steps = small(train__max_steps=2, train__logging_steps=1)
    plain = read_lines(rows.run(train(steps, rows).run).metrics)
    assert all("mfu" in line and "matmul_share" not in line for line in plain)
    monkeypatch.setattr(Machine, "sheet", ACCELERATORS["t4"])
    run = rows.run(train(steps, rows).run)
    found = [line for line in read_lines(run.metrics) if "loss" in line]
    assert found and all(line["mfu"] <= line["matmul_share"] for line in found)
    assert any("8 TFLOP/s in the data sheet of t4" in line for line in record_of(run).choices)
