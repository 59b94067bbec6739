"""A run's mixture changes where its stages say, alike on any number of processes, before and after a resume."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config, SourceConfig, StageConfig
from pretrain_cli.data.prepare import prepare
from pretrain_cli.data.rows.reader import open_rows
from pretrain_cli.errors import ConfigError
from pretrain_cli.manifest import read_manifest
from pretrain_cli.training.rows.order import RowOrder, continued
from pretrain_cli.training.rows.stages import StagedRows, plan_stages
from pretrain_cli.training.run import train
from tests.support.preparing import check_ledger
from tests.support.runs import Heard, PowerCut, course, cut, small, weights_equal

SOURCES = {"web": range(90), "empty": range(90, 90), "books": range(90, 113)}
LAST_TENTH = (StageConfig(share=0.9, mixture={"web": 3, "books": 1}), StageConfig(share=0.1, mixture={"books": 1}))


def order(stages: StagedRows, micro: int, world: int = 1, rank: int = 0, **more: Any) -> RowOrder:
    return RowOrder(113, micro, 10**6, seed=stages.seed, rank=rank, world_size=world, stages=stages, **more)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3), st.sampled_from([31, 40, 77]), st.sampled_from([4, 8]), st.floats(0.1, 9))
def test_each_stage_takes_its_shares_and_goes_through_each_source_evenly(
    seed: int, steps: int, batch: int, weight: float
) -> None:
    wanted = (StageConfig(share=1), StageConfig(share=2, mixture={"books": weight, "web": 1}), *LAST_TENTH[1:])
    stages = plan_stages(wanted, SOURCES, steps, batch, seed)
    taken = [row for step in range(1, steps + 1) for row in order(stages, batch).step(step, 1)]
    assert len(taken) == steps * batch == sum(stage.size for stage in stages.stages)
    for stage, asked in zip(stages.stages, wanted, strict=True):
        assert abs(stage.size / len(taken) - asked.share / 3.1) <= 1 / steps
        own = taken[stage.first : stage.first + stage.size]
        books = sum(row in SOURCES["books"] for row in own)
        shares = asked.mixture or {name: len(rows) for name, rows in SOURCES.items()}
        assert abs(books - stage.size * shares["books"] / sum(shares.values())) <= 1
    for rows in SOURCES.values():
        times = Counter(row for row in taken if row in rows)
        whole, rest = divmod(times.total(), max(1, len(rows)))
        used = [times[row] for row in rows]
        # Every row once before any again: but a stage shuffles what it takes, so only whole passes before it are even.
        assert not rows or (min(used) >= whole and max(used) <= whole + (rest > 0))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 3), st.integers(1, 60))
def test_a_step_holds_the_same_rows_on_any_number_of_processes_and_after_a_resume(seed: int, step: int) -> None:
    stages = plan_stages(LAST_TENTH, SOURCES, 60, 8, seed)
    one = order(stages, 8).step(step, 1)
    for world, micro, accumulation in ((2, 4, 1), (4, 1, 2), (1, 2, 4)):
        assert sorted(order(stages, micro, world).step(step, accumulation)) == sorted(one)
    again = continued(order(stages, 2, 2, 1), (step - 1) * 2)
    assert [again.micro(at, 1) for at in range((step - 1) * 2, step * 2)] == [
        order(stages, 2, 2, 1).micro(at, 1) for at in range((step - 1) * 2, step * 2)
    ]


def test_rows_that_diverged_are_left_out_while_a_stage_has_others() -> None:
    stages = plan_stages(LAST_TENTH, SOURCES, 20, 4, 0)
    bad = frozenset(order(stages, 4).step(3, 1))
    without = order(stages, 4, left_out=bad, replaced_from=12)
    assert not bad & {row for step in range(4, 21) for row in without.step(step, 1)}
    all_books = order(stages, 4, left_out=frozenset(SOURCES["books"]), replaced_from=0)
    assert set(all_books.step(20, 1)) <= set(SOURCES["books"])  # there are no others


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("stages")
    for name, words in (("web", "net page link "), ("books", "whale sea ship ")):
        (folder / f"{name}.txt").write_text("\n\n".join(f"{words} {number} " * 15 for number in range(40)))
    sources = [SourceConfig(path=str(folder / f"{name}.txt"), name=name) for name in ("web", "books")]
    return changed(
        Config(), data__sources=sources,
        data__stages=LAST_TENTH, data__sequence_length=32, data__workers=1, data__document_separator="\n\n",
        tokenizer__vocab_size=400, tokenizer__engine="tokenizers",
    )  # fmt: skip


@pytest.fixture(scope="module")
def rows(config: Config) -> Artifacts:
    artifacts = Artifacts(Path(config.data.sources[0].path).parent / "artifacts")
    prepare(config, artifacts)
    return artifacts


def test_each_row_is_of_one_source_and_all_adds_up(config: Config, rows: Artifacts) -> None:
    check_ledger(rows)
    sources = read_manifest(rows).sources
    found = open_rows(rows.train_rows)
    of_row = [set(found.pieces(row, "piece_sources").tolist()) for row in range(len(found))]
    assert of_row == [{0}] * sources["web"].rows + [{1}] * sources["books"].rows
    other = changed(config, data__stages=LAST_TENTH[:1])
    assert prepare(other, rows).reused, "other mixtures need other rows"
    assert not prepare(changed(config, data__stages=()), Artifacts(rows.root.parent / "mixed")).reused


def small_stages(config: Config, **values: Any) -> Config:
    stages = [stage.model_dump() for stage in config.data.stages]
    steps = {"train__max_steps": 10, "train__save_steps": 2, "train__eval_steps": 3, "train__optimizer": "adamw"}
    return small(**{"data__stages": stages, **steps, **values})


@pytest.mark.slow
@pytest.mark.parametrize("step", [5, 9])  # the resume begins inside a stage, or on the border at step 9
def test_a_resume_inside_a_stage_and_across_a_border_is_exact(config: Config, rows: Artifacts, step: int) -> None:
    straight, stopped = rows.run(f"straight-{step}"), rows.run(f"stopped-{step}")
    heard = Heard()
    train(small_stages(config), rows, heard, run_name=straight.name)
    assert any(note.startswith("stages steps 1 to 9 web 75%, books 25%; 10 to 10 books 100%") for note in heard.notes)
    with pytest.raises(PowerCut):
        train(small_stages(config), rows, Heard(**{f"step_{step}": cut}), run_name=stopped.name)
    train(small(), rows, resume=stopped.name)
    assert course(stopped) == course(straight) and weights_equal(stopped, straight)
    with pytest.raises(ConfigError, match=r"data\.stages"):
        train(small(data__stages=[{"share": 1}], train__max_steps=12), rows, resume=stopped.name)


def test_what_cannot_be_is_said_in_two_lines(config: Config, rows: Artifacts, tmp_path: Path) -> None:
    unknown = (StageConfig(share=1, mixture={"code": 1}),)
    for told, attempt in (
        ("'code', and there is none", lambda: prepare(changed(config, data__stages=unknown), Artifacts(tmp_path))),
        ("which has no training rows", lambda: plan_stages(unknown, SOURCES, 10, 4, 0)),
        ("no step", lambda: plan_stages(LAST_TENTH, SOURCES, 3, 4, 0)),
        ("no set number", lambda: train(small_stages(config, train__max_steps=None, train__max_minutes=1), rows)),
    ):
        with pytest.raises(ConfigError, match=told) as caught:
            attempt()
        assert caught.value.hint
    mixed = Artifacts(tmp_path / "mixed")
    prepare(changed(config, data__stages=()), mixed)
    with pytest.raises(ConfigError, match="prepared without"):
        train(small_stages(config), mixed)
