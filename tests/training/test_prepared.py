"""A config that changed after prepare is noticed before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed, load_config
from pretrain_cli.config.model import Config
from pretrain_cli.errors import ConfigError
from pretrain_cli.manifest import read_manifest
from pretrain_cli.training.rows.prepared import check_prepared, other_inputs


@pytest.mark.parametrize(
    ("key", "value", "was"),
    [
        ("data__sequence_length", 64, "32"),
        ("data__packing", "concat", "'best-fit'"),
        ("data__add_eos", False, "True"),
        ("data__cleaning", ("newlines",), r"\[\]"),
        ("data__exact_dedup", False, "True"),
        ("data__document_separator", "---", r"'\\n\\n'"),
        ("data__validation_fraction", 0.2, "0.05"),
        ("tokenizer__vocab_size", 500, "400"),
        ("tokenizer__path", "other.json", "''"),
        ("data__sources", ({"path": "a.txt", "weight": 2.0},), r"\[\['text', 1.0\]\]"),
    ],
)
def test_a_changed_setting_is_named_with_both_values(rows: Artifacts, key: str, value: Any, was: str) -> None:
    with pytest.raises(ConfigError, match=f"{key.replace('__', '.')} = {was}, the config says") as caught:
        check_prepared(changed(Config(), **{key: value}), read_manifest(rows))
    assert "ptk prepare" in caught.value.hint


def test_what_was_a_flag_of_prepare_need_not_be_said_again(rows: Artifacts) -> None:
    manifest = read_manifest(rows)
    check_prepared(Config(), manifest)
    same = changed(Config(), data__sequence_length=32, data__packing="best-fit", tokenizer__vocab_size=400)
    check_prepared(same, manifest)
    check_prepared(changed(Config(), data__workers=3, data__on_error="skip", tokenizer__engine="fastokens"), manifest)


def test_a_preset_for_other_rows_is_noticed(rows: Artifacts) -> None:
    with pytest.raises(ConfigError, match="sequence_length = 32, the config says 512"):
        check_prepared(load_config(preset="smollm2", environ={}).config, read_manifest(rows))


def test_inputs_that_the_rows_were_not_made_from_are_named(rows: Artifacts) -> None:
    manifest = read_manifest(rows)
    path = manifest.inputs[0].path
    folder = path.rpartition("/")[0]
    for named in (path, folder, f"{folder}/*.txt"):
        assert other_inputs(changed(Config(), data__inputs=(named,)), manifest) == ""
    told = other_inputs(changed(Config(), data__inputs=("elsewhere.txt",)), manifest)
    assert "elsewhere.txt" in told and path in told and "ptk prepare" in told
