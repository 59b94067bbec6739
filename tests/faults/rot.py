"""Damages each file of an artifact folder, and shows which commands notice.

``python -m tests.faults.rot`` prints the table; ``--sample 6`` takes six cases of each command.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults.injection import Ended, in_a_disturbed_process
from tests.faults.scenarios import EVALUATE, PREPARE, TRAIN, copy_start, outcome
from tests.faults.sweep import Sweep, untold

DAMAGES = ("byte", "digit", "cut")
"""The middle byte has another bit; a digit near the middle is another one; the second half is gone."""


@dataclass(frozen=True)
class Reader:
    """A command that reads an artifact folder.

    Attributes:
        name: for people.
        words: what is typed.
        result: what it makes, of what it printed and the folder: equal results are equal values.
    """

    name: str
    words: tuple[str, ...]
    result: Callable[[Ended, Path], object]


@dataclass(frozen=True)
class Verdict:
    """What a command made of a damaged file: "error", "warning", "harmless", "silent", or "FAULT: …"."""

    reader: str
    path: str
    damage: str
    verdict: str


def readers(texts: Path, root: Path) -> list[Reader]:
    """The commands; ``texts`` as the sweep's scenarios have them."""
    at = ("--artifacts", str(root))
    given = ("--set", "tokenizer.vocab_size=300")
    train = ("train", "--run", "b", *at, *TRAIN, "--max-steps", "2")
    found = [
        Reader("prepare", ("prepare", str(texts / "one.txt"), *at, *PREPARE, *given), _below("data", "tokenizer")),
        Reader("train", train, _below("runs/b/model", "runs/b/metrics.jsonl")),
        Reader(
            "train --resume",
            ("train", "--resume", "a", *at, "--max-steps", "3"),
            _below("runs/a/model", "runs/a/metrics.jsonl"),
        ),
        Reader(
            "evaluate",
            ("evaluate", "a", *at, *EVALUATE),
            _below("runs/a/evaluation/report.json"),
        ),
        Reader("generate", ("generate", "Call me", *at, "--greedy", "--max-tokens", "12"), _printed),
        Reader("export", ("export", "a", *at), _below("exports")),
        Reader("runs list", ("runs", "list", *at), _printed),
        Reader("runs show", ("runs", "show", "a", *at), _printed),
        Reader("runs compare", ("runs", "compare", "a", "a2", *at), _printed),
    ]
    return [*found, Reader("doctor --verify", ("doctor", "--verify", *at), lambda *_: None)]


def _below(*parts: str) -> Callable[[Ended, Path], object]:
    def result(_: Ended, root: Path) -> object:
        return {path: text for path, text in outcome(root).items() if path.startswith(parts) and "." in path}

    return result


def _printed(ended: Ended, _: Path) -> object:
    return re.sub(r"[\d.,]+ ?(s|ms|tokens/s|[kM]?B)\b|\S+ago|\d\d:\d\d|\d{4}-\d\d-\d\d", "", ended.out)


def damaged(content: bytes, damage: str) -> bytes | None:
    """``content`` after ``damage``; None where it can't have that."""
    middle = len(content) // 2
    if not content:
        return None
    if damage == "cut":
        return content[:middle]
    if damage == "byte":
        flipped = content[middle] ^ (1 if _is_text(content) else 0xFF)
        return content[:middle] + bytes([flipped]) + content[middle + 1 :]
    if not _is_text(content):
        return None
    digit = re.compile(rb"\d").search(content, middle) or re.search(rb"\d", content)
    return content[: digit.start()] + bytes([content[digit.start()] ^ 1]) + content[digit.end() :] if digit else None


def _is_text(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in content


class Rot:
    """Runs commands on damaged folders."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep, self.root = sweep, sweep.root
        at = ("--artifacts", str(self.root))
        (prepare,) = next(scenario.before for scenario in sweep.scenarios if scenario.name == "train")
        first = ("train", "--run", "a", *at, *TRAIN, "--max-steps", "2")
        second = ("train", "--run", "a2", *at, *TRAIN, "--max-steps", "2", "--seed", "1")
        self.start = sweep.start_of((prepare, second, first, ("evaluate", "a", *at, *EVALUATE)))
        self.readers = readers(sweep.texts, self.root)

    def files(self) -> list[str]:
        """Every file of the folder but locks."""
        paths = sorted(path for path in self.start.rglob("*") if path.is_file() and not path.name.startswith(".lock"))
        names = [str(path.relative_to(self.start)) for path in paths]
        return [name for name in names if not name.startswith("runs/a2")]

    def verdicts(self, reader: Reader, sample: int | None = None) -> Iterator[Verdict]:
        """What ``reader`` makes of each file and damage, or of ``sample`` of them."""
        copy_start(self.start, self.root)
        well = self.sweep.run(reader.words)
        assert well.status == 0, (reader.name, well.error)
        expected, said = reader.result(well, self.root), _lines(well)
        cases = [(name, damage) for name in self.files() for damage in DAMAGES]
        if sample is not None:
            cases = random.Random(reader.name).sample(cases, sample)
        for name, damage in cases:
            bytes_ = damaged((self.start / name).read_bytes(), damage)
            if bytes_ is None:
                continue
            copy_start(self.start, self.root)
            (self.root / name).write_bytes(bytes_)
            ended = self.sweep.run(reader.words)
            yield Verdict(reader.name, name, damage, self._verdict(reader, ended, expected, said))

    def _verdict(self, reader: Reader, ended: Ended, expected: object, said: set[str]) -> str:
        if ended.status and reader.name != "doctor --verify":
            wrong = untold(ended)
            return f"FAULT: {wrong}" if wrong else "error"
        if ended.status:
            return "error" if "Traceback" not in ended.error else f"FAULT: {ended.error[-300:]}"
        if _lines(ended) - said:
            return "warning"
        return "harmless" if reader.result(ended, self.root) == expected else "silent"


def _lines(ended: Ended) -> set[str]:
    """What was said on stderr, without figures, places and the course of a training."""
    lines = (re.sub(r"[\d.,:]+", "#", line) for line in ended.error.splitlines())
    return {line for line in lines if not line.startswith(("step=", "Loading weights")) and "done in" not in line}


def kind_of(path: str) -> str:
    """The row of the table that a file belongs to."""
    name = re.sub(r"step-\d+", "step-*", re.sub(r"\d{5}", "*", path))
    return name


def table(verdicts: Sequence[Verdict]) -> str:
    """Who notices what, by file and command."""
    names = list(dict.fromkeys(verdict.reader for verdict in verdicts))
    lines = [f"| file | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for path in dict.fromkeys(kind_of(verdict.path) for verdict in verdicts):
        cells = []
        for name in names:
            told = {v.damage: v.verdict.split(":")[0] for v in verdicts if kind_of(v.path) == path and v.reader == name}
            noticed = {damage: verdict for damage, verdict in told.items() if verdict != "harmless"}
            alike = len(set(told.values())) == 1
            cells.append(
                next(iter(noticed.values())) if noticed and alike
                else ", ".join(f"{verdict} ({damage})" for damage, verdict in noticed.items()) or "–"
            )  # fmt: skip
        lines.append(f"| {path} | {' | '.join(cells)} |")
    counts = Counter(verdict.verdict.split(":")[0] for verdict in verdicts)
    return "\n".join([*lines, "", ", ".join(f"{kind}: {number:,}" for kind, number in counts.items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="commands; all where none is named")
    parser.add_argument("--sample", type=int, help="take only so many cases of each command")
    parser.add_argument("--json", type=Path, help="write the verdicts there")
    options = parser.parse_args()
    with in_a_disturbed_process("tests.faults.rot") as work:
        rot = Rot(Sweep(work))
        verdicts: list[Verdict] = []
        for reader in rot.readers:
            if options.names and reader.name not in options.names:
                continue
            for verdict in rot.verdicts(reader, options.sample):
                verdicts.append(verdict)
                if verdict.verdict.startswith(("silent", "FAULT")):
                    print(f"{verdict.reader}: {verdict.path} ({verdict.damage}): {verdict.verdict}", flush=True)
        if options.json:
            options.json.write_text(json.dumps([asdict(verdict) for verdict in verdicts]))
        print(table(verdicts))


if __name__ == "__main__":
    main()
