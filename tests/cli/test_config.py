"""`ptk config`: show, init and keys."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pretrain_cli.config.load import known_keys, load_config


def test_show_names_the_layer_of_each_value(ptk, empty, monkeypatch) -> None:
    Path("ptk.toml").write_text('preset = "continue"\n[train]\nseed = 3\nweight_decay = 0.2\n')
    monkeypatch.setenv("PTK_TRAIN__WEIGHT_DECAY", "0.3")
    values = ptk("config", "show", "--json", "--set", "train.max_steps=5").json
    assert values["train.seed"] == {"value": 3, "origin": "ptk.toml"}
    assert values["train.weight_decay"] == {"value": 0.3, "origin": "PTK_TRAIN__WEIGHT_DECAY"}
    assert values["train.schedule"] == {"value": "cosine", "origin": "preset continue"}
    assert values["train.max_steps"] == {"value": 5, "origin": "--set"}
    assert values["train.keep"] == {"value": 2, "origin": "default"}


def test_show_prints_a_line_a_key(ptk) -> None:
    outcome = ptk("config", "show")
    assert len(outcome.out.splitlines()) == len(known_keys())
    assert 'train.learning_rate = "auto"' in outcome.out


def test_init_writes_a_file_that_changes_nothing(ptk, empty) -> None:
    assert ptk("config", "init").code == 0
    tomllib.loads(Path("ptk.toml").read_text())
    assert load_config(environ={}).config == load_config(file=None, environ={}).config
    again = ptk("config", "init")
    assert again.code == 2 and "--force" in again.err


def test_init_keeps_what_was_chosen(ptk, empty) -> None:
    assert ptk("config", "init", "mine.toml", "--preset", "tinysolar").code == 0
    assert load_config(file=Path("mine.toml"), environ={}).config == load_config(preset="tinysolar", environ={}).config


def test_trainer_keys_are_shown_and_kept(ptk, empty) -> None:
    chosen = ("--set", "trainer.adam_epsilon=1e-7")
    assert ptk("config", "show", "--changed", *chosen).out == "trainer = {adam_epsilon = 1e-07}  # --set\n"
    assert ptk("config", "init", "mine.toml", *chosen).code == 0
    assert load_config(file=Path("mine.toml"), environ={}).config.trainer == {"adam_epsilon": 1e-7}


def test_keys_explain_one_or_a_section(ptk) -> None:
    assert "Peak learning rate" in ptk("config", "keys", "train.learning_rate").out
    shown = ptk("config", "keys", "tokenizer", "--json").json
    assert set(shown) - {"schema", "version", "warnings"} == {key for key in known_keys() if "tokenizer." in key}
    assert "Did you mean 'data.packing'" in ptk("config", "keys", "data.packin").err
