"""Turns sums into figures: a model's scores on a text, and the paired comparison of two models."""

from __future__ import annotations

import numpy as np

from pretrain_cli.evaluation.bootstrap import Interval, difference, interval, units
from pretrain_cli.evaluation.metrics import METRICS, bits_per_byte
from pretrain_cli.evaluation.results import ChangedDocument, Comparison, MetricDifference, ScoredDocument, TextScore
from pretrain_cli.evaluation.sums import Sums, TextSums

MOST_CHANGED = 10
LISTED_DOCUMENTS = 1000
"""Documents that report.json lists, the hardest first: a text can have millions."""


def score_figures(name: str, sums: TextSums, seed: int) -> TextScore:
    """Every metric of ``sums``, with intervals where the text is long enough."""
    total = sums.blocks().sum(axis=0)
    pieces = units([document.blocks for document in sums.documents])
    scored = pieces[pieces[:, 1] > 0]  # in a block inside one long token no token begins
    intervals = {key: interval(metric, scored, seed) for key, metric in METRICS.items()}
    values = {key: float(metric(total)) for key, metric in METRICS.items()}
    return TextScore(
        name=name,
        **values,
        tokens=int(total[1]),
        bytes=int(total[4]),
        documents=len(sums.documents),
        bits_per_byte_interval=_pair(intervals["bits_per_byte"]),
        intervals={key: (found.low, found.high) for key, found in intervals.items() if found.known},
        by_source=_by_source(sums),
        by_position=sums.by_position(),
        by_frequency=sums.by_frequency(),
        by_document=_by_document(sums),
        lost_characters=sums.back.lost,
        unknown_tokens=sums.back.unknown,
    )


def compare(
    text: str, first: tuple[str, TextSums], second: tuple[str, TextSums], seed: int, early: bool = False
) -> Comparison:
    """Bits per byte of ``first`` (name, sums) minus ``second`` on the same text.

    ``early``: a run of one of them had hardly begun, so that "better" and "worse" hold only so far.
    """
    one, two = (units([document.blocks for document in sums.documents]) for _, sums in (first, second))
    found = difference(bits_per_byte, one, two, seed)
    return Comparison(
        text=text,
        first=first[0],
        second=second[0],
        difference=found.value,
        interval=_pair(found.interval),
        verdict=f"{found.verdict} so far" if early and found.verdict in ("better", "worse") else found.verdict,
        changed=_most_changed(first[1], second[1]),
        metrics=_metric_differences(one, two, seed),
    )


def _metric_differences(one: Sums, two: Sums, seed: int) -> dict[str, MetricDifference]:
    """Differences of the metrics per token; none where the models' tokens aren't the same."""
    if not np.array_equal(one[:, 1], two[:, 1]):
        return {}
    scored = one[:, 1] > 0
    found = {
        key: difference(metric, one[scored], two[scored], seed)
        for key, metric in METRICS.items()
        if metric is not bits_per_byte
    }
    return {key: MetricDifference(entry.value, _pair(entry.interval)) for key, entry in found.items()}


def _by_document(sums: TextSums) -> list[ScoredDocument]:
    documents = [
        ScoredDocument(entry.name, entry.source, entry.opening, entry.n_bytes, _document_bits(entry.blocks))
        for entry in sums.documents
    ]
    return sorted(documents, key=lambda entry: -entry.bits_per_byte)[:LISTED_DOCUMENTS]


def _most_changed(first: TextSums, second: TextSums) -> list[ChangedDocument]:
    pairs = [
        ChangedDocument(one.name, one.opening, _document_bits(one.blocks), _document_bits(two.blocks))
        for one, two in zip(first.documents, second.documents, strict=True)
    ]
    return sorted(pairs, key=lambda pair: -abs(pair.change))[:MOST_CHANGED]


def _document_bits(blocks: Sums) -> float:
    return float(bits_per_byte(blocks.sum(axis=0)))


def _by_source(sums: TextSums) -> dict[str, float]:
    names = dict.fromkeys(document.source for document in sums.documents)
    if len(names) < 2:
        return {}
    return {
        name or "(unnamed)": float(
            bits_per_byte(np.concatenate([each.blocks for each in sums.documents if each.source == name]).sum(axis=0))
        )
        for name in names
    }


def _pair(found: Interval) -> tuple[float, float] | None:
    return (found.low, found.high) if found.known else None
