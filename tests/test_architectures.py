"""Models of any architecture are walked, or refused in two lines; what ptk says of them is true."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "architectures.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("architectures", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its records look their types up
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "apart", "chunked", "memory"),
    [
        ("gpt_neox", True, True, "past_key_values"),
        ("mixtral", True, True, "past_key_values"),
        ("cohere", True, False, "past_key_values"),
        ("mamba", False, True, "cache_params"),
    ],
)
def test_what_ptk_says_of_a_model_is_true(script, name: str, apart: bool, chunked: bool, memory: str) -> None:
    found = script.claims(script.tiny_model(name), name)
    assert (found.apart, found.chunked, found.memory, found.refused) == (apart, chunked, memory, "")


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_sees_the_future_gets_no_further(script) -> None:
    assert "isn't a causal language model" in script.claims(script.tiny_model("bert"), "bert").refused


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "told"), [("mixtral", "walked"), ("jamba", "walked"), ("gptj", "walked"), ("bert", "refused: 'bert' sees")]
)
def test_a_road_is_walked_or_refused(script, name: str, told: str, tmp_path: Path) -> None:
    cells, right = script.look(name, tmp_path / "model")
    assert right and cells[-1].startswith(told)
