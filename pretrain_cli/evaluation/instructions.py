"""Checks by program whether an answer does what an instruction asks (the idea of IFEval, arXiv 2311.07911)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class Instruction:
    """What is asked, and the check of the answer: its name, and what it compares with."""

    prompt: str
    check: str
    value: Any

    def followed(self, answer: str) -> bool:
        """Whether ``answer`` does what is asked; an empty one never does."""
        return bool(answer.strip()) and CHECKS[self.check](answer.strip(), self.value)


def read_instructions() -> list[Instruction]:
    """Those that come with the package."""
    lines = resources.files("pretrain_cli.texts").joinpath("instructions.jsonl").read_text(encoding="utf-8")
    return [Instruction(**json.loads(line)) for line in lines.splitlines()]


def _lines(answer: str) -> list[str]:
    return [line.strip() for line in answer.splitlines() if line.strip()]


def _words(answer: str) -> list[str]:
    return re.findall(r"[\w'’-]+", answer)


def _names(answer: str, word: str) -> bool:
    return re.search(rf"(?i)\b{re.escape(word)}\b", answer) is not None


def _bullets(answer: str, count: int) -> bool:
    lines = _lines(answer)
    return len(lines) == count and all(line.startswith("- ") for line in lines)


def _numbered(answer: str, count: int) -> bool:
    """The list may be introduced, as "Here are three steps:" does."""
    lines = _lines(answer)
    return (
        len(lines) >= count
        and all(line.startswith(f"{number}.") for number, line in enumerate(lines[-count:], 1))
        and not any(re.match(r"\d+\.", line) for line in lines[:-count])
    )


def _json(answer: str, _: object) -> bool:
    inner = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", answer, re.DOTALL)
    try:
        return isinstance(json.loads(inner[1] if inner else answer), dict)
    except ValueError:
        return False


def _quoted(answer: str, _: object) -> bool:
    return len(answer) > 2 and answer[0] in '"“' and answer[-1] in '"”'


CHECKS: dict[str, Callable[[str, Any], bool]] = {
    "bullets": _bullets,
    "numbered": _numbered,
    "json": _json,
    "no_commas": lambda answer, _: "," not in answer,
    "upper": lambda answer, _: answer.upper() == answer and answer.lower() != answer,
    "lower": lambda answer, _: answer.lower() == answer and answer.upper() != answer,
    "at_most_words": lambda answer, count: len(_words(answer)) <= count,
    "at_least_words": lambda answer, count: len(_words(answer)) >= count,
    "includes": lambda answer, words: all(_names(answer, word) for word in words),
    "excludes": lambda answer, words: not any(_names(answer, word) for word in words),
    "yes_or_no": lambda answer, _: re.fullmatch(r"(?i)(yes|no)\W*", answer) is not None,
    "ends_with": lambda answer, end: answer.endswith(end),
    "starts_with": lambda answer, start: answer.startswith(start),
    "question": lambda answer, _: answer.endswith("?") and answer.count("?") == 1,
    "paragraphs": lambda answer, count: len(re.split(r"\n\s*\n", answer)) == count,
    "quoted": _quoted,
}
"""Name of a check → (answer, value) → whether it holds."""
