"""Short text and much time: several models teach the one that is kept, through kills as without them."""

from __future__ import annotations

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import TrainConfig
from pretrain_cli.errors import ConfigError
from pretrain_cli.storage import read_lines
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.little_text import SPARE, choose_ensemble, student_work
from pretrain_cli.training.choices.plan import make_plan
from pretrain_cli.training.run import train
from tests.support.runs import Heard, PowerCut, course, cut, prepare_text, record_of, small, weights_equal

AUTO = TrainConfig()


@pytest.mark.parametrize(("times", "count"), [(1.0, 0), (6.0, 0), (7.0, 2), (13.0, 4), (21.0, 8), (500.0, 8)])
def test_the_time_that_is_left_decides_how_many_models_teach(times: float, count: int) -> None:
    found = choose_ensemble(AUTO, base=False, times=times, seconds=600)
    assert found.value == count and SPARE * (count + student_work(count)) <= times + SPARE * 2


def test_one_model_learns_alone_from_a_base_with_given_teachers_in_a_short_run_or_where_it_is_asked_for() -> None:
    assert choose_ensemble(AUTO, base=True, times=99, seconds=600).value == 0
    assert choose_ensemble(TrainConfig(teacher=("other",)), base=False, times=99, seconds=600).value == 0
    assert choose_ensemble(AUTO, base=False, times=99, seconds=60).value == 0
    assert choose_ensemble(TrainConfig(ensemble=0), base=False, times=99, seconds=600).value == 0


def test_an_ensemble_beside_teachers_or_with_a_base_is_refused() -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        choose_ensemble(TrainConfig(ensemble=2, teacher=("other",)), base=False, times=0, seconds=None)
    with pytest.raises(ConfigError, match="a base is given"):
        choose_ensemble(TrainConfig(ensemble=2), base=True, times=0, seconds=None)


def test_a_plan_with_minutes_to_spare_uses_them_and_says_so_in_one_line() -> None:
    facts = Facts(train_rows=1000, sequence_length=256, vocab_size=2048, flops=2e11, memory_bytes=8e9)
    few, many = (make_plan(facts, TrainConfig(max_minutes=minutes), size="tiny") for minutes in (1, 30))
    assert few.ensemble == 0 and many.ensemble == 8 and many.teaching_s > 0
    assert many.reasons["ensemble"].startswith("8 models first, which then teach the one that is kept: ")
    assert many.steps is not None and many.steps * many.batch_tokens == pytest.approx(6 * facts.text_tokens, rel=0.01)
    alone = make_plan(facts, TrainConfig(max_minutes=30, ensemble=0), size="tiny")
    assert alone.ensemble == 0 and alone.steps is not None and alone.steps < many.steps


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory, prose: str) -> Artifacts:
    return prepare_text(tmp_path_factory.mktemp("short"), prose[:5_000])


@pytest.mark.slow
@pytest.mark.parametrize("part", ["first teacher", "second teacher", "student"])
def test_a_run_cut_in_any_part_of_it_resumes_to_the_same_model(short: Artifacts, part: str) -> None:
    rows = short
    config = small(train__max_steps=20, train__ensemble=2, train__epochs=0.5, train__save_steps=4, train__eval_steps=5)
    if "whole" not in rows.run_names():
        heard = Heard()
        train(config, rows, heard, run_name="whole")
        assert [note for note in heard.notes if note.startswith("teacher 2 of 2: ")]
    name = f"cut-{part.replace(' ', '-')}"
    cuts = {"first teacher": 0, "second teacher": 1, "student": 2}[part]
    with pytest.raises(PowerCut):
        train(config, rows, CutInPart(cuts), run_name=name)
    again = Heard()
    result = train(small(), rows, again, resume=name)
    assert result.status == "finished" and record_of(rows.run(name)).status == "finished"
    assert weights_equal(rows.run("whole"), rows.run(name))
    assert course(rows.run("whole")) == course(rows.run(name))
    assert len(read_lines(rows.run(name).metrics)) == result.steps
    assert name in rows.run_names() and not any(other.startswith("teacher") for other in rows.run_names())
    assert rows.latest_run().name == name


class CutInPart(Heard):
    """Cuts the power in the sixth step of the part of this number."""

    def __init__(self, part: int) -> None:
        super().__init__()
        self._left = part

    def stage(self, name: str, total: float | None = None, unit: str = "") -> None:
        if name.endswith("training"):
            if self._left == 0:
                self.at_step = {6: cut}
            self._left -= 1
