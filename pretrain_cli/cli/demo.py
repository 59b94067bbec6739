"""Implements `ptk demo`: runs the whole pipeline on a text that ships with the package."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from pretrain_cli.artifacts import MODEL_RECORD, Artifacts
from pretrain_cli.cli.console import shell
from pretrain_cli.cli.options import command
from pretrain_cli.cli.session import Session
from pretrain_cli.config.model import Config
from pretrain_cli.errors import UsageError
from pretrain_cli.formatting import count_of
from pretrain_cli.manifest import read_manifest
from pretrain_cli.progress import Progress
from pretrain_cli.quiet import quiet_import

if TYPE_CHECKING:
    from pretrain_cli.data.result import PrepareResult
    from pretrain_cli.evaluation.results import EvaluateResult
    from pretrain_cli.generation.results import GenerateResult
    from pretrain_cli.run_record import TrainResult

TEXT = "demo.txt"
SEPARATOR = "\n\n\n"
"""What separates the chapters in the packaged text."""
PROMPT = "The whale"


@command(examples=("ptk demo", "ptk demo --artifacts somewhere-else"))
def demo(
    session: Session,
    minutes: Annotated[
        float, typer.Option("--minutes", metavar="X", min=0.05, max=10_000, help="Minutes of training.")
    ] = 1.0,
) -> None:
    """Prepare, train, evaluate and generate, on chapters of Moby Dick that ship with ptk.

    Takes about two minutes on two cores and needs no network. Writes to the same folder as the other commands.
    """
    _refuse_other_data(session.artifacts)
    with resources.as_file(resources.files("pretrain_cli.texts") / TEXT) as text:
        session = session.with_config(
            data__inputs=(str(text),), data__document_separator=SEPARATOR, train__max_minutes=minutes,
            data__split="tail", tracking__report_to="none", generate__max_tokens=80,
        )  # fmt: skip
        with session.progress() as progress:
            walk = _walk(session.config, session.artifacts, progress, session.command)
    session.console.result("The whole pipeline, on chapters of Moby Dick", _facts(walk, session.artifacts), walk)
    if session.console.speaks:
        out, sample = session.console.out, walk.generate.samples[0]
        out.print(Text(f"\n{sample.prompt}{sample.text}\n"), soft_wrap=not out.is_terminal)
    session.console.text("To do the same with your own text:\n")
    for line in _own_text():
        session.console.text(f"  {line}")


@dataclass(frozen=True)
class Walk:
    """The results of the four stages, and the scores after and before training."""

    prepare: PrepareResult
    train: TrainResult
    evaluate: EvaluateResult
    generate: GenerateResult
    bits_per_byte: float
    untrained_bits_per_byte: float


def _walk(config: Config, artifacts: Artifacts, progress: Progress, typed: tuple[str, ...]) -> Walk:
    """Run the four stages, one after the other."""
    from pretrain_cli.data.prepare import prepare
    from pretrain_cli.evaluation.run import evaluate
    from pretrain_cli.generation.run import generate

    with quiet_import():
        from pretrain_cli.training.run import train

    prepared = prepare(config, artifacts, progress)
    trained = train(config, artifacts, progress, command=typed)
    with _untrained(Path(trained.model)) as folder:
        scored = evaluate(config, artifacts, progress, models=[trained.run, str(folder)])
    written = generate(config, artifacts, progress, prompts=[PROMPT], model=trained.run)
    scores = {model.name: model.texts[0].bits_per_byte for model in scored.models}
    return Walk(prepared, trained, scored, written, scores[trained.run], scores["untrained"])


def _facts(walk: Walk, artifacts: Artifacts) -> list[tuple[str, str]]:
    text = f"{count_of(walk.prepare.documents, 'chapter')}, {count_of(walk.prepare.tokens, 'token')}"
    work = f"{count_of(walk.train.steps, 'step')}, {count_of(walk.train.tokens, 'token')}"
    after, before = walk.bits_per_byte, walk.untrained_bits_per_byte
    return [
        ("prepared", f"{text}, in {artifacts.data}"),
        ("trained", f"{work}, in {walk.train.model}"),
        ("evaluated", f"{after:.2f} bits per byte on chapters it has never seen; {before:.2f} before training"),
    ]


def _own_text() -> Iterator[str]:
    """The commands that do the same with the user's text."""
    if shutil.which("ptk") is None:  # the demo was run as .venv/bin/ptk
        activate = Path(sys.executable).parent / "activate"
        near = activate.is_relative_to(Path.cwd())
        yield f". {shell(str(activate.relative_to(Path.cwd()) if near else activate))}"
    yield "ptk prepare data.txt --artifacts mine"
    yield "ptk train --device auto --artifacts mine"
    yield "ptk evaluate --artifacts mine"
    yield 'ptk generate "Once upon a time" --artifacts mine'


@contextmanager
def _untrained(model: Path) -> Iterator[Path]:
    """A folder with the model before any training: same shape and tokenizer, new weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "untrained"
        shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors*", MODEL_RECORD))
        torch.manual_seed(0)
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        AutoModelForCausalLM.from_config(config, trust_remote_code=False).save_pretrained(folder)
        yield folder


def _refuse_other_data(artifacts: Artifacts) -> None:
    """The demo never replaces data prepared from the user's text."""
    inputs = read_manifest(artifacts).inputs if artifacts.manifest.is_file() else ()
    if any(Path(entry.path).name != TEXT for entry in inputs):
        raise UsageError(
            f"{artifacts.root} holds data prepared from another text.",
            "Give the demo its own folder: ptk demo --artifacts demo",
        )
