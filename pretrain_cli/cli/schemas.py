"""Describes what each command prints with --json, as JSON Schema made from the records of its result."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable
from importlib import import_module
from typing import Any

from pretrain_cli.cli.console import JSON_SCHEMA
from pretrain_cli.cli.streams import OutputError
from pretrain_cli.errors import (
    EXIT_CODES,
    ConfigError,
    DataError,
    DivergedError,
    Interrupted,
    MissingDependencyError,
    ModelError,
    OutOfMemoryError,
    PtkError,
    UsageError,
)  # fmt: skip
from pretrain_cli.processes import ProcessDied
from pretrain_cli.refusals import DiskError
from pretrain_cli.remote import StorageError

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ENVELOPE: dict[str, Any] = {
    "schema": {"const": JSON_SCHEMA, "description": "Another number where a field changes its name or meaning."},
    "version": {"type": "string", "description": "Of ptk."},
    "warnings": {"type": "array", "items": {"type": "string"}, "description": "All that were given."},
}
"""Fields that every object has, errors too."""
MODELS = {
    "type": "array",
    "description": "The same by model, where several write.",
    "items": {
        "type": "object",
        "properties": {
            "model": {"type": "string"},
            "samples": {"type": "array", "items": {"$ref": "#/$defs/GeneratedText"}},
        },
        "required": ["model", "samples"],
    },
}
LEFT_OUT = {"GeneratedText": ("ids",)}
"""Record → fields that aren't printed."""
ADDED: dict[str, dict[str, Any]] = {
    "Comparison": {"sentence": {"type": "string", "description": "The verdict in words."}},
    "BlendLine": {"sentence": {"type": "string", "description": "What the best point keeps and costs, in words."}},
    "GenerateResult": {"models": MODELS},
}
"""Record → fields that are printed besides its own."""
ONLY_SOMETIMES = {"GeneratedText": ("probabilities",), "GenerateResult": ("models",)}
"""Record → fields that are printed only where they were asked for."""
ERRORS = (
    *(PtkError, UsageError, ConfigError, DataError, ModelError, DivergedError, MissingDependencyError, Interrupted),
    *(DiskError, OutOfMemoryError, ProcessDied, OutputError, StorageError),
)


@dataclasses.dataclass
class Setting:
    """A value of the config, and the layer that set it, such as "default", "ptk.toml" or "--set"."""

    value: Any
    origin: str


@dataclasses.dataclass
class KeyHelp:
    """What a config key is for."""

    type: str
    default: str
    help: str


@dataclasses.dataclass
class Written:
    """The file that was written."""

    path: str


@dataclasses.dataclass
class Removed:
    """The runs that were removed, and the bytes that they took."""

    removed: list[str]
    bytes: int


@dataclasses.dataclass
class RunList:
    """All runs, oldest first."""

    runs: list[RunSummary]  # type: ignore[name-defined]  # noqa: F821


@dataclasses.dataclass
class Diagnosis:
    """What was checked; ``ok``: the default pipeline can run."""

    ok: bool
    checks: list[Check]  # type: ignore[name-defined]  # noqa: F821


@dataclasses.dataclass
class Differing:
    """A file that differs from its record, and how; or one without a record."""

    path: str
    found: str


@dataclasses.dataclass
class Verified:
    """With --verify: ``files`` of ``bytes`` are as they were written; runs ``training`` now are left out."""

    ok: bool
    files: int
    bytes: int
    differs: list[Differing]
    unrecorded: list[Differing]
    training: list[str]


def command_schema(command: str) -> dict[str, Any]:
    """The schema of what ``command``, such as "runs list", prints with --json: one of its results, or an error."""
    from pydantic import TypeAdapter

    results: list[Any] = []
    definitions: dict[str, Any] = {}
    for record in RESULTS[command]():
        schema = TypeAdapter(record).json_schema(mode="serialization")
        definitions |= schema.pop("$defs", {})
        results.append(_with_envelope(_as_printed(schema)))
    definitions = {name: _as_printed(definition) for name, definition in definitions.items()}
    whole = {"$schema": DIALECT, "title": f"ptk {command} --json", "anyOf": [*results, error_schema()]}
    return {**whole, "$defs": definitions} if definitions else whole


def error_schema() -> dict[str, Any]:
    """The schema of what any command prints with --json where it fails, or is stopped."""
    kinds = ", ".join(sorted({f"{error.kind} {error.exit_code}" for error in ERRORS}))
    codes = "; ".join(f"{code}: {meaning}" for code, meaning in EXIT_CODES.items())
    fields = {
        "kind": {"enum": sorted({error.kind for error in ERRORS}), "description": f"With its exit code: {kinds}."},
        "message": {"type": "string", "description": "What went wrong and where."},
        "hint": {"type": "string", "description": "What to do about it; may be empty."},
        "exit_code": {"type": "integer", "description": codes},
    }
    error = {"type": "object", "properties": fields, "required": list(fields)}
    return _with_envelope({"title": "Error", "type": "object", "properties": {"error": error}, "required": ["error"]})


def _with_envelope(schema: dict[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in schema.get("properties", {}).items() if name not in ENVELOPE}
    required = [name for name in schema.get("required", ()) if name not in ENVELOPE]
    return {**schema, "properties": {**ENVELOPE, **own}, "required": [*ENVELOPE, *required]}


def _as_printed(schema: Any) -> Any:
    """A schema as the command prints it: all fields of a record but those left out; NaN and infinity are null."""
    if isinstance(schema, list):
        return [_as_printed(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _as_printed(value) for key, value in schema.items() if key not in ("default", "properties")}
    if found.get("type") == "number":
        found["type"] = ["number", "null"]
    meanings: dict[str, str] = {}
    if isinstance(found.get("description"), str):
        found["description"], meanings = _meanings(found["description"])
    if "properties" in schema:
        name = schema.get("title", "")
        own = {field: value for field, value in schema["properties"].items() if field not in LEFT_OUT.get(name, ())}
        fields = {
            field: _as_printed(_untitled(value)) | ({"description": meanings[field]} if field in meanings else {})
            for field, value in own.items()
        }
        fields |= ADDED.get(name, {})
        found["properties"] = fields
        found["required"] = [field for field in fields if field not in ONLY_SOMETIMES.get(name, ())]
    return found


def _untitled(schema: Any) -> Any:
    """Pydantic's title of a field is its name again."""
    return {key: value for key, value in schema.items() if key != "title"}


def _meanings(docstring: str) -> tuple[str, dict[str, str]]:
    """A record's docstring without its section "Attributes", and that section: field → meaning."""
    text, _, section = re.sub(r"\bNone\b", "null", docstring.replace("``", "`")).partition("Attributes:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        words = line.strip()
        if entry := re.match(r"    ([a-z_0-9]+(?:, [a-z_0-9]+)*): (.*)", line):
            names, words = entry[1].split(", "), entry[2]
        for name in names:
            found[name] = f"{found.get(name, '')} {words}".strip()
    return " ".join(text.split()), found


def _named(*places: str) -> Callable[[], list[Any]]:
    """The records at "module:name", imported when they are asked for; torch comes with some."""

    def find() -> list[Any]:
        return [getattr(import_module(f"pretrain_cli.{module}"), name) for module, name in map(_split, places)]

    return find


def _split(place: str) -> tuple[str, str]:
    module, _, name = place.partition(":")
    return module, name


def _resolved(record: type, *places: str) -> Any:
    """``record`` with the records at ``places``, which its fields name."""
    named = {found.__name__: found for found in _named(*places)()}
    made = dataclasses.make_dataclass(record.__name__, list(typing.get_type_hints(record, localns=named).items()))
    made.__doc__ = record.__doc__
    return made


def _demo() -> list[Any]:
    places = ("data.result:PrepareResult", "run_record:TrainResult", "evaluation.results:EvaluateResult")
    return [_resolved(_named("cli.demo:Walk")()[0], *places, "generation.results:GenerateResult")]


RESULTS: dict[str, Callable[[], list[Any]]] = {
    "prepare": _named("data.result:PrepareResult"),
    "train": _named("run_record:TrainResult", "training.measuring.range_test:RateSearch"),
    "evaluate": _named("evaluation.results:EvaluateResult"),
    "generate": _named("generation.results:GenerateResult"),
    "demo": _demo,
    "doctor": lambda: [_resolved(Diagnosis, "cli.doctor:Check"), Verified],
    "plan": _named("planning.result:TrainingPlan"),
    "inspect": _named("data.inspect:RowView", "data.inspect:PreparedFigures"),
    "config show": lambda: [dict[str, Setting]],
    "config init": lambda: [Written],
    "config keys": lambda: [dict[str, KeyHelp]],
    "runs list": lambda: [_resolved(RunList, "runs.results:RunSummary")],
    "runs show": _named("runs.results:RunDetails"),
    "runs compare": _named("runs.results:RunComparison"),
    "runs remove": lambda: [Removed],
    "export": _named("exporting.run:ExportResult"),
    "blend": _named("exporting.blend:BlendResult"),
}
"""Command → the records that it prints; two where an option makes it do something else."""
