"""A choice says who made it: the command, a preset, a file, the environment, or the start of the run."""

from __future__ import annotations

import pytest

from pretrain_cli.config.load import load_config
from pretrain_cli.run_record import RunRecord
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.plan import make_plan
from pretrain_cli.training.choices.reasons import KEYS, Reasons
from pretrain_cli.training.context import ChoiceLog
from tests.support.runs import Heard, small

FACTS = Facts(train_rows=9_000, sequence_length=256, vocab_size=4096, flops=190e9, memory_bytes=8e9)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ("--schedule", "as asked"),
        ("--set", "as asked"),
        ("preset continue", "from preset continue"),
        ("ptk.toml", "set in ptk.toml"),
        ("PTK_TRAIN__SCHEDULE", "set by PTK_TRAIN__SCHEDULE"),
        ("default", "as asked"),
    ],
)
def test_the_layer_that_set_a_value_is_its_reason(layer: str, reason: str) -> None:
    told = Reasons({"train.schedule": layer}).told("schedule", "cosine to zero, after 1 step of warm-up: as asked")
    assert told == f"cosine to zero, after 1 step of warm-up: {reason}"


def test_a_reason_of_its_own_stays() -> None:
    told = "cpu: no GPU that torch can use"
    assert Reasons({"train.device": "ptk.toml"}).told("device", told) == told


def test_a_resume_keeps_the_reasons_of_the_first_start() -> None:
    first = RunRecord(
        choices=("batch 512 tokens (8 rows of 64): small batches learn most", "learning rate 0.02: by heart")
    )
    again = Reasons({"train.batch_tokens": "default", "train.optimizer": "default"}, first)
    assert again.told("batch", "512 tokens (4 rows of 64 × 2): as asked").endswith(": small batches learn most")
    assert again.told("learning rate", "0.02: as asked") == "0.02: by heart"
    assert again.told("optimizer", "muon: as asked") == "muon: as before the resume"
    changed = Reasons({"train.batch_tokens": "--batch-tokens"}, first)
    assert changed.told("batch", "512 tokens: as asked") == "512 tokens: as asked"


def test_a_preset_is_named_in_what_a_start_says() -> None:
    resolved = load_config(preset="continue", environ={})
    heard = Heard()
    log = ChoiceLog(heard, Reasons(resolved.origins))
    for name, told in make_plan(FACTS, resolved.config.train).reasons.items():
        log.told(name, told)
    for name in ("optimizer", "schedule"):
        assert any(line.startswith(name) and line.endswith("from preset continue") for line in heard.notes), name
    assert log.lines == heard.notes


def test_every_name_stands_for_settings_that_exist() -> None:
    known = {f"{section}.{key}" for section, values in small().model_dump().items() if isinstance(values, dict)
             for key in values}  # fmt: skip
    assert {key for keys in KEYS.values() for key in keys} <= known
