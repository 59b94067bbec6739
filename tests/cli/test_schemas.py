"""What commands print with --json is what `ptk schema` says of it, no field more and none less."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import pretrain_cli
from pretrain_cli.cli.commands import make_app
from pretrain_cli.cli.schemas import ERRORS, RESULTS, command_schema, error_schema
from pretrain_cli.errors import PtkError
from tests.support.commands import SMALL, ok, ptk

TEXT = "Call me Ishmael. Some years ago, never mind how long precisely, I thought I would sail about a little.\n"
FAST = ("--max-steps", "2", "--set", "train.micro_batch=2", *SMALL)


def exact(schema: Any) -> Any:
    """The schema, with no fields but those that it names."""
    if isinstance(schema, list):
        return [exact(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: exact(value) for key, value in schema.items()}
    return {"additionalProperties": False, **found} if "properties" in schema else found


def check(value: Any, command: str) -> None:
    schema = exact(command_schema(command))
    jsonschema.Draft202012Validator.check_schema(schema)
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors(value))
    assert errors == [], [
        (context.json_path, context.message) for error in errors for context in error.context or [error]
    ]


def leaves() -> set[str]:
    import typer

    commands = typer.main.get_command(make_app()).commands  # type: ignore[attr-defined]
    groups = {name: list(getattr(command, "commands", {})) for name, command in commands.items()}
    return {f"{name} {child}".strip() for name, children in groups.items() for child in children or [""]}


def test_every_command_has_a_schema() -> None:
    assert set(RESULTS) == leaves() - {"schema"}


def test_every_kind_of_error_is_in_the_schema_of_errors() -> None:
    def kinds(error: type[PtkError]) -> set[str]:
        return {error.kind}.union(*(kinds(child) for child in error.__subclasses__() if "pretrain" in child.__module__))

    for file in Path(pretrain_cli.__file__).parent.rglob("*.py"):
        if re.search(r"^class \w+\(PtkError\)", file.read_text("utf-8"), re.MULTILINE):
            name = file.relative_to(Path(pretrain_cli.__file__).parent).with_suffix("")
            import_module(".".join(["pretrain_cli", *name.parts]))
    assert kinds(PtkError) == {error.kind for error in ERRORS}


def test_schema_prints_that_of_a_command_or_of_errors(ptk) -> None:
    assert ptk("schema", "runs", "list").json == command_schema("runs list")
    assert ptk("schema", "error").json == error_schema()
    refused = ptk("schema", "walk", "--json")
    assert refused.code == 2
    jsonschema.validate(refused.json, exact(error_schema()))


@pytest.mark.parametrize(
    "line",
    [
        "config show",
        "config show --changed --set train.seed=3",
        "config keys train",
        "config init",
        "runs list",
    ],
)
def test_quick_commands_print_what_their_schema_says(ptk, line: str) -> None:
    outcome = ptk(*line.split(), "--json")
    check(outcome.json, " ".join(line.split()[:2]))
    assert "error" not in outcome.json


@pytest.mark.slow
def test_every_stage_prints_what_its_schema_says(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("".join(f"{number}: {TEXT}" for number in range(300)), encoding="utf-8")

    def checked(*words: str, command: str = "") -> None:
        check(ok(tmp_path, *words), command or words[0])

    checked("prepare", "data.txt", "--set", "data.sequence_length=64", "--set", "tokenizer.vocab_size=300")
    checked("prepare", "data.txt", "--set", "data.sequence_length=64", "--set", "tokenizer.vocab_size=300")
    checked("inspect")
    checked("inspect", "--stats")
    checked("plan", "--size", "tiny", "--device", "cpu", "--measure", "0")
    checked("train", "--run", "first", *FAST)
    checked("train", "--run", "second", "--learning-rate", "0.001", *FAST)
    checked("evaluate", "first", "second", "--on", "validation", "--set", "evaluate.samples=1")
    checked("generate", "The", "--max-tokens", "4")
    checked("generate", "The", "--max-tokens", "4", "--probabilities", "--against", "first")
    checked("export", "first")
    checked("doctor", "--verify")
    checked("doctor")
    for words in (("runs", "list"), ("runs", "show", "first"), ("runs", "compare", "first", "second")):
        checked(*words, command=" ".join(words[:2]))
    checked("runs", "remove", "first", "--yes", command="runs remove")
    assert set(ok(tmp_path, "schema")) == set(RESULTS)
    failed = ptk(tmp_path, "evaluate", "nothing", "--json")
    assert failed.returncode == 4
    check(json.loads(failed.stdout), "evaluate")
