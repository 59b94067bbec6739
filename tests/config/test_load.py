"""The config's layers, and what is said about mistakes in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_cli.cli.fields import config_field
from pretrain_cli.config.load import changed, known_keys, load_config, preset_names, to_toml
from pretrain_cli.errors import ConfigError


def load(**arguments):
    return load_config(environ=arguments.pop("environ", {}), **arguments)


def test_later_layers_win(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('preset = "tinysolar"\n[train]\nseed = 1\nmax_steps = 1\nkeep = 1\n')
    resolved = load(
        file=file, environ={"PTK_TRAIN__MAX_STEPS": "2", "PTK_TRAIN__KEEP": "2"}, assignments=["train.keep=3"],
        flags={"train.micro_batch": "4"},
    )  # fmt: skip
    train = resolved.config.train
    assert (train.learning_rate, train.seed, train.max_steps, train.keep, train.micro_batch) == (5e-5, 1, 2, 3, 4)
    assert resolved.origins["train.learning_rate"] == "preset tinysolar"
    assert resolved.origins["train.micro_batch"] == "--micro-batch"


def test_the_tinysolar_preset_is_the_published_script_value_by_value() -> None:
    config = load(preset="tinysolar").config
    train = config.train
    assert (config.data.sequence_length, config.data.packing) == (32, "concat")
    assert (train.micro_batch, train.max_steps, train.learning_rate) == (2, 30, 5e-5)
    assert (train.warmup_steps, train.schedule, train.gradient_accumulation) == (10, "linear", 1)
    assert train.precision == "auto-weights"  # bf16 as the script has it, where the machine computes that natively


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_survives_a_round_trip(name, tmp_path) -> None:
    config = load(preset=name).config
    file = tmp_path / "config.toml"
    file.write_text(to_toml(config))
    assert load(file=file).config == config


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("train.learnin_rate=1", "Did you mean 'train.learning_rate'?"),
        ("learning_rate=1", "learning_rate"),
        ("train=1", "section"),
        ("train.max_steps=0", "greater than 0"),
        ("train.schedule=round", "linear"),
        ("data.sequence_length=1e9", "sequence_length"),
        ("train.learning_rate=inf", "finite"),
        ("train.max_minutes=nan", "finite"),
        ("train.max_steps=true", "must be a number, not true"),
        ("train.max_steps=1.5", "whole number"),
        ("generate.greedy=3", "true or false"),
        ("data.cleaning=ftfy", '["ftfy"]'),
        ("data.sources=[{pth='a'}]", "'path' is missing"),
    ],
)
def test_a_mistake_names_what_would_be_right(assignment, words) -> None:
    with pytest.raises(ConfigError) as caught:
        load(assignments=[assignment])
    assert words in caught.value.message + caught.value.hint
    assert "--set" in caught.value.message


def test_a_mistake_in_a_file_names_the_file(tmp_path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("[train]\nmax_step = 3\n")
    with pytest.raises(ConfigError, match=r"own\.toml: unknown key 'train\.max_step'"):
        load(file=file)
    file.write_text("[train\n")
    with pytest.raises(ConfigError, match="isn't valid TOML"):
        load(file=file)
    file.write_bytes(b"\xff\xfe[train]")
    with pytest.raises(ConfigError, match="isn't UTF-8"):
        load(file=file)


@pytest.mark.parametrize(
    ("variable", "words"),
    [("PTK_TRAIN_SEED", "PTK_TRAIN__SEED"), ("PTK_TRAIN__SEDE", "train.seed"), ("PTK_ARTIFACT", "PTK_ARTIFACTS")],
)
def test_a_slip_in_a_variable_is_an_error_and_not_silence(variable, words) -> None:
    with pytest.raises(ConfigError) as caught:
        load(environ={variable: "1"})
    assert variable in caught.value.message and words in caught.value.hint
    assert load(environ={"PTK_TEST_PROCESSES": "2", "PTK_ARTIFACTS": "x"}).config == load().config


def test_trainer_takes_any_key() -> None:
    assert load(assignments=["trainer.adam_epsilon=1e-7"]).config.trainer == {"adam_epsilon": 1e-7}


@pytest.mark.parametrize("name", ["learning_rate", "max_steps", "bf16", "save_steps"])
def test_a_trainer_key_that_ptk_sets_itself_is_refused_with_its_own_name(name) -> None:
    with pytest.raises(ConfigError, match=f"'trainer.{name}' would have no effect") as caught:
        load(assignments=[f"trainer.{name}=1"])
    assert caught.value.hint.removeprefix("Set ").removesuffix(" instead.") in known_keys()


def test_a_changed_copy_is_validated() -> None:
    config = load().config
    assert changed(config, train__seed=5).train.seed == 5
    with pytest.raises(ConfigError, match="seed"):
        changed(config, train__seed="x")


def test_every_key_is_documented_in_one_line() -> None:
    for key in known_keys():
        text = config_field(key).description
        assert text and "\n" not in text, key
        assert text.endswith("."), key


def test_a_value_that_is_nested_too_deeply_is_no_toml(tmp_path: Path) -> None:
    (tmp_path / "deep.toml").write_text("seed = " + "[" * 100_000)
    with pytest.raises(ConfigError, match=r"deep\.toml isn't valid TOML: it is nested too deeply"):
        load_config(file=tmp_path / "deep.toml")


@pytest.mark.parametrize("number", ["1" * 5000, f"-{'1' * 5000}", f"[[{'1' * 5000}]]", f"0x{'1' * 5000}"])
@pytest.mark.parametrize("key", ["train.seed", "train.learning_rate", "data.inputs", "trainer.seed"])
def test_a_number_with_thousands_of_digits_is_a_wrong_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, number: str
) -> None:
    section, _, name = key.partition(".")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text(f"[{section}]\n{name} = {number}\n")
    with pytest.raises(ConfigError, match=r"own\.toml isn't valid TOML: it has a number of over 4,300 digits"):
        load_config(file=tmp_path / "own.toml")
    if key != "trainer.seed":  # which is passed on as the text that it is then
        with pytest.raises(ConfigError, match=key) as told:
            load_config(assignments=[f"{key}={number}"])
        assert len(told.value.message) < 1000
    (tmp_path / "own.toml").rename("ptk.toml")
    with pytest.raises(ConfigError, match="over 4,300 digits"):
        load_config()


@pytest.mark.parametrize("key", ["train.seed", "train.learning_rate", "train.max_minutes", "train.max_steps"])
def test_a_number_that_python_reads_but_nothing_can_hold_is_a_wrong_value(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        load_config(assignments=[f"{key}={'1' * 4000}"])


@pytest.mark.parametrize("key", ["data.inputs", "evaluate.on", "evaluate.tasks", "train.teacher", "generate.stop"])
def test_a_list_holds_no_empty_name(key: str) -> None:
    """As an unset variable of a shell gives it: ``--teacher "$TEACHER"`` trained without one."""
    with pytest.raises(ConfigError, match=r"\(set by --set\): a name in it is empty"):
        load(assignments=[f'{key}=["a", ""]'])
