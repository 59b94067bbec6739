"""A document separator means the same to prepare, to evaluate and to the tokenizer's sample, however it is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed, load_config
from pretrain_cli.config.model import Config
from pretrain_cli.data.prepare import prepare
from pretrain_cli.errors import ConfigError
from pretrain_cli.evaluation.texts import collect_texts
from pretrain_cli.manifest import read_manifest
from pretrain_cli.progress import Progress
from pretrain_cli.storage import write_sealed_json
from pretrain_cli.training.rows.prepared import check_prepared
from tests.support.preparing import PROSE, Preparing, texts

DOCUMENTS = [f"Document {number}. {PROSE}" for number in range(20)]


class Notes(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize(
    ("typed", "separator"),
    [
        (r"\n\n", "\n\n"),
        ("\n\n", "\n\n"),
        (r"\t", "\t"),
        (r"\r\n", "\r\n"),
        ("§", "§"),
        (r"\xa7", "§"),
        (r"\u2014 ", "— "),
        (r"\\n", r"\n"),
        (r"C:\data", r"C:\data"),
        (r"\x", r"\x"),
        (r"\ud800", r"\ud800"),
        ("<|end|>", "<|end|>"),
    ],
)
def test_prepare_and_evaluate_find_the_same_documents(
    preparing: Preparing, tmp_path: Path, typed: str, separator: str
) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(separator.join(DOCUMENTS).encode())
    _, artifacts = preparing(file, document_separator=typed, validation_fraction=0)
    assert texts(artifacts) == DOCUMENTS
    values = {"data.document_separator": typed, "evaluate.on": (f"text={file}",)}
    (scored,) = collect_texts(load_config(flags=values, environ={}).config, artifacts)
    assert (scored.n_documents, scored.n_bytes) == (len(DOCUMENTS), sum(map(len, DOCUMENTS)))


def test_the_tokenizer_is_trained_on_text_without_the_separator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pretrain_cli.data.choosing import tokenizer_choice

    seen: list[str] = []
    train = tokenizer_choice.train_tokenizer
    monkeypatch.setattr(
        tokenizer_choice, "train_tokenizer", lambda texts, *rest: (seen.extend(texts), train(texts, *rest))
    )
    (tmp_path / "text.txt").write_text("\n\n".join(DOCUMENTS))
    data = {"inputs": [str(tmp_path / "text.txt")], "sequence_length": 32, "document_separator": r"\n\n"}
    prepare(Config.model_validate({"data": {**data, "validation_fraction": 0}}), Artifacts(tmp_path / "out"))
    assert seen == DOCUMENTS


def test_the_two_ways_to_write_a_separator_are_one_request(preparing: Preparing, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join(DOCUMENTS))
    _, artifacts = preparing(file, document_separator="\n\n")
    assert preparing(file, document_separator=r"\n\n")[0].reused
    for typed in ("\n\n", r"\n\n"):
        check_prepared(changed(Config(), data__document_separator=typed), read_manifest(artifacts))
    with pytest.raises(ConfigError, match=r"prepared with data.document_separator = '\\n\\n'"):
        check_prepared(changed(Config(), data__document_separator=r"\n"), read_manifest(artifacts))


def test_rows_separated_by_a_literal_backslash_n_are_prepared_again_and_the_change_is_said(
    tmp_path: Path, byte_level: Path
) -> None:
    """Version 0.1.0 took the two characters as they were typed."""
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join(DOCUMENTS))
    config = Config.model_validate(
        {
            "tokenizer": {"path": str(byte_level)},
            "data": {"inputs": [str(file)], "sequence_length": 32, "document_separator": r"\n\n"},
        }
    )
    artifacts = Artifacts(tmp_path / "artifacts")
    prepare(config, artifacts)
    manifest = json.loads(artifacts.manifest.read_text())
    manifest["request"]["document_separator"] = r"\n\n"
    write_sealed_json(artifacts.manifest, manifest)
    progress = Notes()
    assert not prepare(config, artifacts, progress).reused
    assert any(r"document_separator was '\\n\\n', is '\n\n'" in note for note in progress.notes), progress.notes
    assert read_manifest(artifacts).request["document_separator"] == "\n\n"
    assert prepare(config, artifacts).reused
