"""Windows that go through the model at once give what they give one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config, EvaluateConfig
from pretrain_cli.cores import map_in_order
from pretrain_cli.evaluation.run import evaluate
from tests.support.tiny import SAMPLE, make_model


def test_results_come_in_order_and_few_items_are_taken_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(30):
            taken.append(item)
            yield item

    for place, result in enumerate(map_in_order(lambda item: item * item, items(), 3)):
        assert result == place * place
        assert len(taken) <= place + 5
    assert len(taken) == 30


def test_an_error_in_a_worker_reaches_the_caller_and_threads_are_as_before() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        list(map_in_order(lambda item: 1 // item, [1, 0, 1], 2))
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_several_windows_at_once_give_the_same_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(tmp_path / "model")
    text = tmp_path / "text.txt"
    text.write_text(SAMPLE * 20, "utf-8")
    config = Config(evaluate=EvaluateConfig(on=(str(text),), context=64, batch_tokens=64, samples=0))
    scores = []
    for workers in (1, 3):
        monkeypatch.setattr("pretrain_cli.evaluation.scoring.worker_count", lambda device, workers=workers: workers)
        scores.append(evaluate(config, Artifacts(tmp_path), models=[str(model)]).models[0].texts[0])
    assert scores[0] == scores[1]
