"""The commands of the pages that people copy from run, in the order of the page, with a small text and few steps."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from pretrain_cli.cli import app
from tests.support.tiny import make_model

DOCS = Path(__file__).parent.parent / "docs"
PAGES = (
    "../README.md", "../AGENTS.md", "index.md", "recipes.md", "concepts/planning.md",
    *(f"guides/{name}.md" for name in (
        "chat", "continue-a-base", "first-model", "generate-and-export", "install", "language", "lora", "several-gpus",
        "use-your-model",
    )),
)  # fmt: skip
NOT_RUN = {
    "guides/code.md": "a prompt of several lines: tests/data/test_middles.py, tests/generation/test_generate.py",
    "guides/worked-example.md": "hours of a real base; its commands are those of recipes.md",
    "guides/slurm.md": "needs a cluster: tests/training/test_processes.py",
    "../skills/ptk/SKILL.md": "the text of AGENTS.md",
    "reference/cli.md": "the examples of each command's help: their options are checked by tests/test_docs.py",
}
"""Pages with commands that aren't run here, and why."""
ENGLISH = (DOCS.parent / "pretrain_cli" / "texts" / "demo.txt").read_text("utf-8")
TEXT = "Call me Ishmael. Some years ago, never mind how long precisely, I thought I would sail about a little.\n"
SKIPPED = {
    "--processes": "starts processes: tests/training/test_processes.py",
    "--shard-model": "needs several: tests/training/test_sharding.py",
    "ptk train --method qlora": "needs a base that is prepared with: tests/training/test_lora.py",
    "ptk demo": "takes a minute: tests/test_wheel.py",
    "--samples 3": "the same as one sample",
    "--interactive": "asks: tests/cli/test_generate.py",
    "--engine llama.cpp": "tests/exporting/test_llama_cpp.py",
    "--push-to-hub": "needs an account: tests/exporting/test_hub.py",
    "--install-completion": "changes the shell: tests/cli/test_completing.py",
}
"""Beginning of a command, or a part of it → why it isn't run here, and what does run it."""
ENVIRONMENT = {
    "PTK_DATA__SEQUENCE_LENGTH": "32",
    "PTK_TOKENIZER__VOCAB_SIZE": "300",
    "PTK_MODEL__SIZE": "2",
    "PTK_TRAIN__MAX_STEPS": "2",
    "PTK_TRAIN__MICRO_BATCH": "2",
    "PTK_TRAIN__ENSEMBLE": "0",
    "PTK_TRAIN__DEVICE": "cpu",
    "PTK_TRAIN__PRECISION": "fp32",
    "PTK_TRACKING__REPORT_TO": "none",
    "PTK_EVALUATE__SAMPLE": "2000",
    "PTK_EVALUATE__SAMPLES": "0",
    "PTK_GENERATE__MAX_TOKENS": "4",
    "OMP_NUM_THREADS": "1",
}
SMALLER = {
    "--run larger --size small": "--run larger --size 1",
    "step-000100": "step-000002",
    "--blend 0,0.25,0.5,0.75,1": "--blend 0,1",
    '"Установка"': '"a"',  # the tiny base can't write it
}
MODELS = ("upstage/TinySolar-248m-4k", "OWNER/NAME", "owner/some-7b-model", "smollm2", "owner/some-model")
"""Names of bases in the pages: a tiny one stands for each."""
NEEDS_A_RUN = (
    "guides/use-your-model.md", "guides/generate-and-export.md", "guides/several-gpus.md", "concepts/planning.md",
)  # fmt: skip
"""Pages that begin where a base was continued already."""
MORE = {"plan": ["--measure", "0"]}
"""Options that keep a command short here."""


def commands(page: str) -> list[tuple[str, list[str]]]:
    """The lines of a page that run ptk, each with what the comment beside it names: `.models[0].name` of its JSON."""
    blocks = re.findall(r"```sh\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    lines = [line.partition(" #") for block in blocks for line in block.splitlines()]
    return [
        (command.strip(), re.findall(r"(?<!\S)(?:\.[a-z_]+(?:\[\d*\])?)+", comment) if "--json" in line else [])
        for line, _, comment in lines
        if line.startswith("ptk ")
        for command in line.split("&&")
    ]


def look_up(value: Any, path: str) -> Any:
    """What `path` names in a JSON value; KeyError or IndexError where nothing is there."""
    for name, place in re.findall(r"\.([a-z_]+)(?:\[(\d*)\])?", path):
        value = value[name]
        if isinstance(value, list) and f"{name}[" in path:
            value = value[int(place or 0)]
    return value


CHAT = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"


def stand_ins(folder: Path) -> dict[str, str]:
    """What the pages' models and numbers are here: tiny models, one of which knows a chat; the longest name first."""
    models = {name: str(folder / "tiny") for name in MODELS}
    for name, seed in (("tiny", 0), ("some-model-instruct", 1)):
        (make_model(folder / name, seed=seed) / "chat_template.jinja").write_text(CHAT)
    return {**SMALLER, "owner/some-model-instruct": str(folder / "some-model-instruct"), **models}


def make_texts() -> None:
    """The files and folders that the pages name."""
    Path("data.txt").write_text("---\n".join(f"{number}: {TEXT * 3}" for number in range(60)), "utf-8")
    Path("moby-dick.txt").write_text(ENGLISH[:12_000], "utf-8")
    Path("prompts.txt").write_text("Call me\nThe whale\n", "utf-8")
    Path("reviews.jsonl").write_text("".join(f'{{"review": "{number}: {TEXT.strip()}"}}\n' for number in range(60)))
    for name in ("pages", "corpus", "my-texts", "general-texts"):
        Path(name).mkdir()
        for number in range(3):
            Path(name, f"{number}.txt").write_text(ENGLISH[number * 4000 : number * 4000 + 4000], "utf-8")


def test_every_page_with_commands_runs_or_says_why_not() -> None:
    root = DOCS.parent
    pages = [*DOCS.rglob("*.md"), *root.glob("*.md"), *(root / "skills").rglob("*.md")]
    named = {(DOCS / page).resolve() for page in (*PAGES, *NOT_RUN)}
    assert [path for path in pages if path not in named and commands(str(path))] == []
    tests = re.findall(r"tests/[\w/]+\.py", " ".join((*SKIPPED.values(), *NOT_RUN.values())))
    assert tests and all((root / test).is_file() for test in tests)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    make_texts()
    shown_and_here = stand_ins(tmp_path)
    if page in NEEDS_A_RUN:
        base = shown_and_here[MODELS[0]]
        assert app.run(["prepare", "data.txt", "--base", base, "--quiet"]) == 0
        assert app.run(["train", "--run", "first", "--quiet"]) == 0
    for line, fields in commands(page):
        if any(part in line for part in SKIPPED):
            continue
        known = line
        for shown, here in shown_and_here.items():
            known = known.replace(shown, here)
        command = shlex.split(known)[1:]
        code = app.run([*command, *MORE.get(command[0], [])])
        printed, told = capfd.readouterr()
        assert code == 0, (line, told)
        for field in fields:
            look_up(json.loads(printed), field)
