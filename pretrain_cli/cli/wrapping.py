"""Breaks lines for a terminal: between words, never before a unit, nor inside a command that is to be copied."""

from __future__ import annotations

import re
import textwrap

COMMAND = re.compile(r": (?=(?:ptk|wandb|pip|ollama|hf) \S)")
"""Between a sentence and the command that ends it."""
BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:[kMGT]?B|k?Wh?|ms|s|min|h)\b)")
HELD = "\0"
"""Stands for a space that no line ends at."""


def break_lines(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` columns; a longer word or command stays whole."""
    found = list(COMMAND.finditer(text))
    sentence, command = (text[: found[-1].start() + 1], text[found[-1].end() :]) if found else (text, "")
    whole = BEFORE_UNIT.sub(HELD, sentence)
    lines = textwrap.wrap(whole, max(1, width), break_long_words=False, break_on_hyphens=False) or [""]
    lines = [line.replace(HELD, " ") for line in lines]
    if not command:
        return lines
    if len(lines[-1]) + 1 + len(command) <= width:
        return [*lines[:-1], f"{lines[-1]} {command}"]
    return [*lines, command]
