"""Disturbs each command at each of its calls that change files, and checks that nothing was lost.

``python -m tests.faults.sweep`` prints the table; ``--sample 6`` takes six points of each command.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.faults.injection import (
    LONGEST_S,
    Ended,
    Fault,
    in_a_disturbed_process,
    run_forked,
)
from tests.faults.scenarios import Scenario, copy_start, outcome, put_foreign, scenarios, write_texts

DISK = (Fault("ENOSPC", 0), Fault("ENOSPC", 0, lasting=True), Fault("EIO", 0), Fault("kill", 0))
POWER = Fault("power", 0)
KINDS: dict[str, tuple[Fault, ...]] = {
    "write": (*DISK, Fault("short", 0)),
    "copy": (*DISK, Fault("short", 0)),
    "open": DISK,
    "truncate": DISK,
    "rename": (*DISK, POWER),
    "link": DISK,
    "mkdir": DISK,
    "fsync": (Fault("ENOSPC", 0), Fault("EIO", 0), Fault("kill", 0), POWER),
    "remove": (Fault("EIO", 0), Fault("kill", 0), POWER),
}
"""Call → what can happen to it."""
ABOUT_THE_NEXT = ("from", "size")
"""Lines of the log that say more of the call that comes next."""


@dataclass(frozen=True)
class Point:
    """A fault, and the call that it hits."""

    fault: Fault
    call: str
    path: str

    @property
    def kind(self) -> tuple[str, str]:
        """The call and the fault."""
        return self.call, self.fault.name

    def __str__(self) -> str:
        return f"{self.fault.name} at call {self.fault.at} ({self.call} {self.path or '/'})"


@dataclass(frozen=True)
class Finding:
    """What a point led to; ``wrong`` is empty where everything held."""

    scenario: str
    point: Point
    wrong: str

    def to_json(self) -> dict[str, str]:
        point = self.point
        return {"command": self.scenario, "call": point.call, "fault": point.fault.name, "wrong": self.wrong}


class Sweep:
    """Runs scenarios and their points.

    Args:
        work: an empty folder.
    """

    def __init__(self, work: Path) -> None:
        self.work, self.root = work, work / "artifacts"
        (work / "temporary").mkdir()
        tempfile.tempdir = str(work / "temporary")
        self.texts = texts = write_texts(work / "texts")
        _in_a_fork(_make_base, work / "base")
        self.scenarios = scenarios(texts, self.root, work / "base")
        self._seen: set[tuple[str, str]] = set()
        self._starts: dict[tuple[Sequence[str], ...], Path] = {}

    def start_of(self, commands: tuple[Sequence[str], ...]) -> Path:
        """A folder with what ``commands`` leave in the artifact folder."""
        if commands not in self._starts:
            if commands:
                copy_start(self.start_of(commands[:-1]), self.root)
            start = self.work / f"start-{len(self._starts)}"
            if commands:
                ended = self.run(commands[-1])
                assert ended.status == 0, ended.error
                shutil.move(self.root, start)
            self._starts[commands] = start
        return self._starts[commands]

    def begin(self, scenario: Scenario) -> None:
        """Put the artifact folder to where ``scenario`` starts."""
        copy_start(self.start_of(scenario.before), self.root)
        put_foreign(scenario, self.root)

    def run(self, words: Sequence[str], fault: Fault | None = None, log: Path | None = None) -> Ended:
        return run_forked(words, self.root, self.work, fault, log)

    def undisturbed(self, scenario: Scenario) -> tuple[dict[str, str], list[tuple[str, str]]]:
        """What is there in the end, and the calls on the way, each with its path."""
        log = self.work / "log"
        log.unlink(missing_ok=True)
        self.begin(scenario)
        ended = self.run(scenario.command, log=log)
        assert ended.status == 0, ended.error
        calls = [line.split(" ", 2) for line in log.read_text().splitlines()]
        return outcome(self.root), [(call, path) for _, call, path in calls if call not in ABOUT_THE_NEXT]

    def check(self, scenario: Scenario, point: Point, expected: dict[str, str]) -> str:
        """Disturb one call, then repeat the command; what is wrong then, or nothing."""
        self.begin(scenario)
        log = self.work / "log"
        log.unlink(missing_ok=True)
        ended = self.run(scenario.command, point.fault, log)
        if point.fault.kind == "power":
            lose_unsynced(self.root, self.start_of(scenario.before), log)
        if ended.status == -signal.SIGALRM:
            return f"hangs for {LONGEST_S} s"
        saved = ended.status != 0
        if not saved:
            if wrong := differences(_without_checkpoints(expected), outcome(self.root), more_may_be_there=True):
                return f"ends well, but {wrong}"
        elif point.fault.kind not in ("kill", "power") or ended.status != -signal.SIGKILL:
            if wrong := untold(ended):
                return wrong
            if wrong := damaged_rows(self.root):
                return wrong
        _age(self.root)
        again = self.run(scenario.repeated(self.root))
        if again.status != 0 and not (scenario.gone and "There is no run" in again.error):
            return f"({_last(ended)}) repeated: {_last(again)}"
        found = outcome(self.root)
        if not saved:  # a run goes on without a checkpoint that it couldn't save
            expected, found = _without_checkpoints(expected), _without_checkpoints(found)
        if wrong := differences(expected, found):
            return f"({_last(ended)}) repeated: {wrong}"
        return ""

    def findings(self, scenario: Scenario, sample: int | None = None) -> Iterator[Finding]:
        """Each point of ``scenario``, or ``sample`` of them: first kinds of fault and call that didn't come up yet."""
        expected, calls = self.undisturbed(scenario)
        chosen = points(calls)
        if sample is not None:
            random.Random(scenario.name).shuffle(chosen)
            new = list({point.kind: point for point in chosen if point.kind not in self._seen}.values())
            chosen = [*new, *(point for point in chosen if point not in new)][:sample]
            self._seen |= {point.kind for point in chosen}
        for point in chosen:
            yield Finding(scenario.name, point, self.check(scenario, point, expected))


def points(calls: Sequence[tuple[str, str]]) -> list[Point]:
    """Every fault of every call; of many alike on one file, the first, the middle and the last."""
    chosen: list[int] = []
    start = 0
    for place in range(1, len(calls) + 1):
        if place == len(calls) or calls[place] != calls[start]:
            chosen += sorted({start, (start + place - 1) // 2, place - 1})
            start = place
    return [Point(replace(fault, at=place + 1), *calls[place]) for place in chosen for fault in KINDS[calls[place][0]]]


def lose_unsynced(root: Path, start: Path, log: Path) -> None:
    """Cut files to what an fsync has put on the disk; names and folders are taken to be there already.

    Args:
        root: the artifact folder.
        start: what it was a copy of.
        log: of the calls since then.
    """
    durable: dict[str, int] = {}
    written: set[str] = set()
    source, size = "", 0
    for line in log.read_text().splitlines():
        number, call, path = line.split(" ", 2)
        if call == "from":
            source = path
        elif call == "size":
            size = int(number)
        elif call == "fsync":
            durable[path] = size
        elif call in ("open", "write", "copy", "truncate"):
            written.add(path)
        elif call == "rename" and not (root / source.lstrip("/")).exists():  # the disturbed call is listed, not done
            for known in [known for known in written if known == source or known.startswith(source + "/")]:
                moved = path + known.removeprefix(source)
                written.add(moved)
                durable[moved] = durable.pop(known, 0)
    for path in written:
        file = root / path.lstrip("/")
        if file.is_file():
            before = (start / path.lstrip("/")).stat().st_size if (start / path.lstrip("/")).is_file() else 0
            with open(file, "rb+") as opened:
                opened.truncate(min(file.stat().st_size, durable.get(path, before)))


def untold(ended: Ended) -> str:
    """What is wrong with how a failed command says so."""
    lines = ended.error.strip().splitlines()
    if ended.status < 0:
        return f"ended by signal {-ended.status}: {_last(ended)}"
    if "Traceback" in ended.error:
        return f"shows a traceback: {_last(ended)}"
    if "bug in ptk" in ended.error:
        return f"calls it a bug: {_last(ended)}"
    if len(lines) < 2 or not (lines[-2].startswith("Error: ") and lines[-1].startswith("Hint: ")):
        return f"doesn't say what happened in two lines: {_last(ended)}"
    return ""


def damaged_rows(root: Path) -> str:
    """What differs from the manifest, where there is one."""
    from pretrain_cli.artifacts import Artifacts
    from pretrain_cli.manifest import damages, read_manifest

    artifacts = Artifacts(root)
    found = damages(artifacts, read_manifest(artifacts), read=True) if artifacts.manifest.is_file() else []
    return f"after the error, {found[0]}" if found else ""


def differences(expected: dict[str, str], found: dict[str, str], more_may_be_there: bool = False) -> str:
    """The first paths that are missing, left over or other than expected."""
    missing = [path for path in expected if path not in found]
    more = [path for path in found if path not in expected and not more_may_be_there]
    other = [path for path in expected if path in found and expected[path] != found[path]]
    kinds = (("lacks", missing), ("left", more), ("changed", other))
    return "; ".join(f"{what} {', '.join(paths[:3])}" for what, paths in kinds if paths)


def _without_checkpoints(found: dict[str, str]) -> dict[str, str]:
    return {path: content for path, content in found.items() if "/checkpoints/step-" not in path}


def _age(root: Path) -> None:
    """Let temporary files look as they do two hours later, when nobody can be writing them any more."""
    for path in root.rglob("*"):
        if any(part.startswith(".") for part in path.relative_to(root).parts):
            os.utime(path, (time.time() - 7200,) * 2, follow_symlinks=False)


def _last(ended: Ended) -> str:
    said = " ".join(ended.error.strip().splitlines()[-2:])[:400] if ended.status > 0 else ""
    return f"status {ended.status}" + (f": {said}" if said else "")


def _make_base(folder: Path) -> None:
    from tests.support.tiny import make_model

    make_model(folder)


def _in_a_fork(function: Any, *arguments: Any) -> None:
    """So that torch's threads aren't started in the process that commands are forked from."""
    child = os.fork()
    if child == 0:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 2)
        function(*arguments)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def table(findings: Sequence[Finding]) -> str:
    """Points and how many held, by command and fault."""
    kinds = list(dict.fromkeys(fault.name for each in KINDS.values() for fault in each))
    lines = [f"| command | {' | '.join(kinds)} | held |", "| --- |" + " --- |" * (len(kinds) + 1)]
    for name in [*dict.fromkeys(finding.scenario for finding in findings), ""]:
        those = [finding for finding in findings if name in ("", finding.scenario)]
        tried = Counter(finding.point.fault.name for finding in those)
        held = sum(not finding.wrong for finding in those)
        cells = " | ".join(f"{tried[kind]:,}" for kind in kinds)
        lines.append(f"| {f'`ptk {name}`' if name else 'all'} | {cells} | {held:,} of {len(those):,} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="commands, such as 'train --resume'; all where none is named")
    parser.add_argument("--sample", type=int, help="take only so many points of each command")
    parser.add_argument("--json", type=Path, help="write the findings there")
    parser.add_argument("--list", action="store_true", help="name the commands")
    options = parser.parse_args()
    with in_a_disturbed_process("tests.faults.sweep") as work:
        sweep = Sweep(work)
        findings: list[Finding] = []
        for scenario in sweep.scenarios:
            if options.list:
                print(scenario.name)
            elif not options.names or scenario.name in options.names:
                print(f"{scenario.name} …", file=sys.stderr, flush=True)
                for finding in sweep.findings(scenario, options.sample):
                    findings.append(finding)
                    if finding.wrong:
                        print(f"{finding.scenario}: {finding.point}: {finding.wrong}", flush=True)
        if options.json:
            options.json.write_text(json.dumps([finding.to_json() for finding in findings]))
        print(table(findings))


if __name__ == "__main__":
    main()
