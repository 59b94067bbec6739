"""Gives results a face in a notebook: verdict, curves and samples as HTML, figures as pandas frames."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pretrain_cli.artifacts import RunFolder
from pretrain_cli.data.result import PrepareResult
from pretrain_cli.evaluation.results import EvaluateResult
from pretrain_cli.formatting import byte_size, count_of, duration, exact, percent, rate, score
from pretrain_cli.generation.results import GenerateResult
from pretrain_cli.run_record import TrainResult
from pretrain_cli.storage import read_lines
from pretrain_cli.webpage import charts, facts, fragment, quote

if TYPE_CHECKING:
    from pandas import DataFrame

Shown = TypeVar("Shown")


class Prepared(PrepareResult):
    """What `prepare` made, with the fields of ``ptk prepare --json``."""

    def _repr_html_(self) -> str:
        dropped = ", ".join(f"{exact(number)} {reason}" for reason, number in self.dropped.items()) or "nothing"
        shown = {
            "documents": exact(self.documents),
            "text": byte_size(self.text_bytes),
            "tokens": exact(self.tokens),
            "rows": f"{exact(self.train_rows)} to train on, {exact(self.validation_rows)} held out, "
            f"{percent(self.fill)} filled",
            "dropped": dropped,
            "tokenizer": self.tokenizer,
            "took": "nothing: it was there already" if self.reused else duration(self.seconds),
            "in": str(self.path),
        }
        return fragment([_verdict(f"{count_of(self.tokens, 'token')} prepared", ""), facts(shown)])


@dataclass(frozen=True)
class Trained(TrainResult):
    """How a run ended, with the fields of ``ptk train --json``."""

    @property
    def folder(self) -> RunFolder:
        """Where the run's files are."""
        return RunFolder(Path(self.model).parent)

    def metrics(self) -> DataFrame:
        """metrics.jsonl: one row for each logged step, with the step as index.

        Columns, where they were measured: tokens, epoch, loss, learning_rate, grad_norm, tokens_per_second, elapsed_s,
        validation_loss, validation_bits_per_byte and more.
        """
        from pandas import DataFrame

        lines = read_lines(self.folder.metrics)
        return DataFrame(lines).set_index("step") if lines else DataFrame()

    def _repr_html_(self) -> str:
        from pretrain_cli.evaluation.report_page import training_charts, training_samples

        bits = self.validation_bits_per_byte
        title = f"Run {self.run} {self.status}"
        told = f"{score(bits)} bits per byte on held-out text" if bits is not None else "not validated"
        shown = {
            "trained": f"{count_of(self.steps, 'step')}, {count_of(self.tokens, 'token')}, {duration(self.seconds)}",
            "loss": f"{score(self.first_loss)} → {score(self.train_loss)}, validation {score(self.validation_loss)}",
            "speed": rate(self.tokens_per_second, "tokens"),
            "outcome": self.outcome or "as planned",
            "model": str(self.model),
        }
        lines = read_lines(self.folder.metrics)
        parts = [_verdict(title, told), facts(shown), charts(training_charts(lines)), *training_samples(self.folder)]
        return fragment(parts)


class Evaluated(EvaluateResult):
    """Scores of models, with the fields of ``ptk evaluate --json``."""

    def scores(self) -> DataFrame:
        """One row for each model and text: bits_per_byte, loss, perplexity, accuracy, tokens, bytes and more."""
        from pandas import DataFrame

        plain = [
            {"model": model.name}
            | {name: value for name, value in asdict(text).items() if not isinstance(value, list | dict)}
            for model in self.models
            for text in model.texts
        ]
        return DataFrame(plain).rename(columns={"name": "text"}).set_index(["model", "text"])

    def _repr_html_(self) -> str:
        from pretrain_cli.evaluation.report_page import sample_texts, verdict_and_scores

        note = f'<p class="note">The whole report: {html.escape(str(self.page))}</p>'
        return fragment([*verdict_and_scores(self), *sample_texts(self), note])


class Generated(GenerateResult):
    """Texts, with the fields of ``ptk generate --json``."""

    @property
    def text(self) -> str:
        """The first sample, without its prompt."""
        return self.samples[0].text

    def _repr_html_(self) -> str:
        told = [quote(f"{one.model}, {count_of(one.tokens, 'token')}", one.prompt, one.text) for one in self.samples]
        return fragment([f'<div class="texts">{"".join(told)}</div>'])


def shown(kind: type[Shown], result: object) -> Shown:
    """``result`` as ``kind``, which has the same fields."""
    return kind(**{entry.name: getattr(result, entry.name) for entry in fields(result)})  # type: ignore[arg-type]


def _verdict(title: str, told: str) -> str:
    return f'<div class="verdict"><b>{html.escape(title)}</b>{html.escape(told)}</div>'
