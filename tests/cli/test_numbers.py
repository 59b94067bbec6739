"""No number that makes no sense, and no empty name, reaches the work, from any option or config key."""

from __future__ import annotations

import pytest
import typer

from pretrain_cli.cli.app import run
from pretrain_cli.cli.commands import make_app
from pretrain_cli.cli.fields import config_field
from pretrain_cli.config.load import known_keys, load_config
from pretrain_cli.errors import ConfigError

SENSELESS = ("-2", "-0.5", "nan", "inf", "-inf", "1" + 30 * "0", "1e308")
ROOT = typer.main.get_command(make_app())


def numeric(key: str) -> bool:
    kind = str(config_field(key).annotation)
    return ("int" in kind or "float" in kind) and "dict" not in kind and "tuple" not in kind


def options() -> list[tuple[tuple[str, ...], str]]:
    """(words of the command, option) of every option that takes a number."""
    found: list[tuple[tuple[str, ...], str]] = []
    for name, command in ROOT.commands.items():  # type: ignore[attr-defined]
        leaves = getattr(command, "commands", {"": command})
        for sub, leaf in leaves.items():
            for parameter in leaf.params:
                if parameter.type_descriptor.annotation in (int, float):
                    found.append(((name, sub) if sub else (name,), parameter.opts[0]))
    return found


@pytest.mark.parametrize("key", [key for key in known_keys() if numeric(key)])
def test_a_config_key_takes_no_senseless_number(key: str) -> None:
    for value in SENSELESS:
        with pytest.raises(ConfigError):
            load_config(assignments=[f"{key}={value}"], environ={})


@pytest.mark.parametrize(("words", "option"), options(), ids=lambda value: str(value))
def test_an_option_takes_no_senseless_number(words: tuple[str, ...], option: str, capfd, tmp_path) -> None:
    for value in SENSELESS:
        code = run([*words, f"{option}={value}", "--artifacts", str(tmp_path / "none")])
        assert code == 2, (value, capfd.readouterr())
    assert not (tmp_path / "none").exists()


def test_there_are_options_and_keys_to_try() -> None:
    assert len(options()) >= 5 and sum(map(numeric, known_keys())) > 30


NAMES = [
    ("generate", "--model", "", "hello"),
    ("generate", "--checkpoint", "", "hello"),
    ("generate", "--against", "", "hello"),
    ("train", "--run", ""),
    ("evaluate", ""),
    ("export", ""),
    ("runs", "compare", "a", ""),
    ("runs", "show", ""),
    ("export", "-o", ""),
    ("blend", "a", "b", "--output="),
    ("prepare", "data.txt", "--artifacts", ""),
    ("config", "show", "--config", ""),
]


@pytest.mark.parametrize("words", NAMES, ids=" ".join)
def test_an_empty_name_is_not_the_current_folder(words: tuple[str, ...], empty, capfd) -> None:
    assert run(list(words)) == 2
    said = capfd.readouterr().err.strip().splitlines()
    assert said[-2].endswith(" is empty."), said
    assert said[-1] == "Hint: Name something, or leave it out."
    assert not list(empty.iterdir())
