"""Preset tinysolar does what the published script does, to a model of its shape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from datasets import load_from_disk
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.support.commands import ok
from tests.support.tiny import make_tokenizer

PARAMETERS = 248_013_824
DOCUMENTS = [f"{index}. Call me Ishmael. Some years ago, never mind how long precisely." for index in range(40)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of TinySolar-248m's config, in bf16: the hub can't be reached here."""
    folder = tmp_path_factory.mktemp("tinysolar")
    make_tokenizer(folder)
    shape = LlamaConfig(
        vocab_size=32_000, hidden_size=1024, intermediate_size=4096, num_hidden_layers=12, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=4096, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(shape).to(torch.bfloat16)
    assert model.num_parameters() == PARAMETERS
    model.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_the_published_script_value_by_value_on_a_model_of_its_shape(tmp_path: Path, base: Path) -> None:
    lines = [json.dumps({"text": text}) for text in DOCUMENTS]
    (tmp_path / "text.jsonl").write_text("\n".join(lines), encoding="utf-8")
    preset = ("--preset", "tinysolar", "--base", str(base))
    ok(tmp_path, "prepare", "text.jsonl", *preset)
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    flat = []
    for text in DOCUMENTS:
        flat += [0, *tokenizer.encode(text, add_special_tokens=False).ids, 1]
    rows = [flat[start : start + 32] for start in range(0, len(flat) - 31, 32)]
    artifacts = tmp_path / "artifacts"
    assert [row["input_ids"] for row in load_from_disk(str(artifacts / "data" / "train"))] == rows
    ledger = json.loads((artifacts / "data" / "manifest.json").read_text())["ledger"]
    assert ledger["tokens"]["dropped"] == {"train_tail": len(flat) % 32}

    short = ("--set", "train.max_steps=2", "--set", "train.save_steps=0", "--set", "tracking.report_to=none")
    result = ok(tmp_path, "train", *preset, *short, "--run", "script")
    assert (result["steps"], result["tokens"]) == (2, 2 * 2 * 32)
    run = artifacts / "runs" / "script"
    assert json.loads((run / "run.json").read_text())["parameters"] == PARAMETERS
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in logged if "loss" in line]
    rates = [line["learning_rate"] for line in steps]
    assert rates[1] - rates[0] == pytest.approx(5e-5 / 11)  # ten warm-up steps, the first of them not at 0
    assert AutoModelForCausalLM.from_pretrained(run / "model").num_parameters() == PARAMETERS
