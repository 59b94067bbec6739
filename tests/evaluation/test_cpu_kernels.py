"""The faster ways to compute on a CPU give the figures of the plain ones, or are left."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from pretrain_cli.evaluation.cpu_kernels import ATTENTION, speed_up
from tests.support.tiny import make_model

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@needs_onednn
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_the_fast_way_gives_the_logits_of_the_plain_one(tmp_path: Path, family: str) -> None:
    folder = make_model(tmp_path / family, family, max_position_embeddings=512)
    plain, fast = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for _ in range(2))
    ids = torch.randint(0, 300, (3, 200))
    assert speed_up(fast, ids[:1])
    assert fast.config._attn_implementation == ATTENTION
    with torch.inference_mode():
        torch.testing.assert_close(
            fast(input_ids=ids, use_cache=False).logits, plain(input_ids=ids, use_cache=False).logits
        )


@needs_onednn
def test_a_model_that_the_fast_way_changes_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_model(tmp_path / "tiny"), dtype=torch.float32)
    ids = torch.randint(0, 300, (1, 160))
    with torch.inference_mode():
        before = model(input_ids=ids, use_cache=False).logits
    monkeypatch.setattr("pretrain_cli.evaluation.cpu_kernels.PackedLinear.forward", lambda self, x: x[..., :1] * 0)
    assert not speed_up(model, ids)
    assert model.config._attn_implementation == "sdpa"
    with torch.inference_mode():
        torch.testing.assert_close(model(input_ids=ids, use_cache=False).logits, before)
