"""Scores of tiny models against plain references, and the comparison of models."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config, EvaluateConfig
from pretrain_cli.errors import DataError, ModelError
from pretrain_cli.evaluation.bootstrap import interval, units
from pretrain_cli.evaluation.metrics import bits_per_byte
from pretrain_cli.evaluation.models import open_model
from pretrain_cli.evaluation.run import evaluate, weights_at_hand
from pretrain_cli.evaluation.scoring import score_text
from pretrain_cli.evaluation.sums import Sums
from pretrain_cli.evaluation.text_documents import Text, TextDocument
from pretrain_cli.model.names import find_model
from pretrain_cli.progress import Progress
from pretrain_cli.runs.verification import verify
from pretrain_cli.storage import write_json
from tests.support.tiny import SAMPLE, make_model

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


def evaluate_file(tmp_path: Path, model: Path, text: str, *others: Path, **settings: object):
    file = tmp_path / "text.txt"
    file.write_text(text, "utf-8")
    config = Config(evaluate=EvaluateConfig(on=(f"text={file}",), **settings))
    return evaluate(config, Artifacts(tmp_path / "artifacts"), models=[str(model), *map(str, others)])


def plain_reference(folder: Path, text: str, context: int, stride: int) -> tuple[float, int]:
    """Nats and tokens by one unbatched window after the other, as the transformers perplexity guide does it."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = [0, *Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids]
    nats, scored_to, tokens = 0.0, 1, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + context, len(ids))
        window = torch.tensor([ids[begin:end]])
        labels = window.clone()
        labels[:, : scored_to - begin] = -100
        new = end - scored_to
        with torch.no_grad():
            nats += float(model(window, labels=labels, use_cache=False).loss) * new
        tokens, scored_to = tokens + new, end
        if end == len(ids):
            break
    return nats, tokens


@pytest.mark.parametrize("stride", [1, 7, 16])
def test_bits_per_byte_equals_a_plain_unbatched_reference(tmp_path: Path, model: Path, stride: int) -> None:
    text = SAMPLE * 2
    score = evaluate_file(tmp_path, model, text, context=32, stride=stride, batch_tokens=256).models[0].texts[0]
    nats, tokens = plain_reference(model, text, 32, stride)
    assert score.tokens == tokens
    assert score.bytes == len(text.encode("utf-8"))
    assert score.bits_per_byte == pytest.approx(nats / math.log(2) / score.bytes, abs=1e-4)
    assert score.perplexity == pytest.approx(math.exp(nats / tokens), rel=1e-4)


def test_documents_do_not_see_each_other(tmp_path: Path, model: Path) -> None:
    texts = [SAMPLE, "Another document.", "x"]
    alone = sum(plain_reference(model, text, 64, 32)[0] for text in texts)
    file = tmp_path / "texts.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    config = Config(evaluate=EvaluateConfig(on=(f"all={file}",), context=64))
    score = evaluate(config, Artifacts(tmp_path / "artifacts"), models=[str(model)]).models[0].texts[0]
    assert score.loss * score.tokens == pytest.approx(alone, abs=1e-3)


@pytest.mark.slow
def test_a_model_against_itself_shows_no_difference(tmp_path: Path, model: Path) -> None:
    result = evaluate_file(tmp_path, model, SAMPLE * 40, model, context=64)
    assert result.comparison[0].difference == 0
    assert result.comparison[0].verdict == "no difference seen"


@pytest.mark.slow
def test_a_much_worse_model_is_called_worse(tmp_path: Path, model: Path) -> None:
    worse = make_model(tmp_path / "worse", initializer_range=1.0)
    result = evaluate_file(tmp_path, worse, SAMPLE * 40, model, context=64)
    assert result.comparison[0].verdict == "worse"
    assert result.comparison[0].interval is not None and result.comparison[0].interval[0] > 0


@pytest.mark.slow
def test_three_models_are_compared_pair_by_pair(tmp_path: Path, model: Path) -> None:
    others = [make_model(tmp_path / name, seed=seed) for name, seed in (("one", 1), ("two", 2))]
    result = evaluate_file(tmp_path, model, SAMPLE * 10, *others, context=64, samples=0)
    assert [(entry.first, entry.second) for entry in result.comparison] == [
        ("tiny", "one"), ("tiny", "two"), ("one", "two"),
    ]  # fmt: skip


@pytest.mark.slow
def test_the_report_is_strict_json_and_the_page_needs_no_network(tmp_path: Path, model: Path) -> None:
    result = evaluate_file(tmp_path, model, SAMPLE * 10, model, context=64)
    report = json.loads(result.report.read_text())
    assert set(report["models"][0]["texts"][0]) >= {
        "name", "bits_per_byte", "loss", "perplexity", "accuracy", "tokens", "bytes",
    }  # fmt: skip
    page = result.page.read_text()
    assert "viewport" in page and "src=" not in page and "<link" not in page


def test_a_report_on_other_texts_stands_beside_the_first(tmp_path: Path, model: Path) -> None:
    first = evaluate_file(tmp_path, model, SAMPLE * 4, context=64, samples=0)
    kept = first.report.read_bytes()
    (tmp_path / "two words.txt").write_text(SAMPLE)
    artifacts = Artifacts(tmp_path / "artifacts")
    config = Config(evaluate=EvaluateConfig(on=(str(tmp_path / "two words.txt"),), context=64, samples=0))
    other = evaluate(config, artifacts, models=[str(model)])
    assert (other.report.name, other.page.name) == ("report-two-words.json", "report-two-words.html")
    assert other.page.is_file() and json.loads(other.report.read_text())["models"][0]["texts"][0]["name"] == "two words"
    sampled = evaluate_file(tmp_path, model, SAMPLE * 4, context=64, samples=0, sample=200)
    assert sampled.report.name.endswith("-sample.json") and first.report.read_bytes() == kept
    assert not verify(artifacts).differs
    again = evaluate_file(tmp_path, model, SAMPLE * 4, context=64, samples=0)
    assert again.report == first.report and first.report.read_bytes() != kept


def test_the_speed_counts_each_token_once_however_windows_overlap(tmp_path: Path, model: Path) -> None:
    told: list[tuple[int, int, int]] = []
    text = Text.measured("a", lambda: iter([TextDocument.whole("a", SAMPLE * 20)]))
    opened = open_model(find_model(str(model), Artifacts(tmp_path)), Artifacts(tmp_path), "cpu", torch.float32, 64)
    sums = score_text(opened, text, stride=None, batch_tokens=64, on_bytes=lambda *done: told.append(done))
    _, tokens, processed = told[-1]
    assert tokens == sums.token_counts.sum() and 1.7 * tokens < processed < 2.3 * tokens


def test_a_sample_scores_about_as_many_bytes_as_asked_for(tmp_path: Path, model: Path) -> None:
    score = evaluate_file(tmp_path, model, SAMPLE * 40, context=64, sample=1000).models[0].texts[0]
    assert 900 < score.bytes < 1200


@pytest.mark.parametrize(
    ("content", "error"), [(b"", DataError), (b"x", DataError), (b"\xff\xfe\x00\x01abc", DataError), (None, DataError)]
)
def test_a_text_that_cannot_be_scored_is_a_data_error(
    tmp_path: Path, model: Path, content: bytes | None, error: type[Exception]
) -> None:
    file = tmp_path / "bad.txt"
    if content is not None:
        file.write_bytes(content)
    config = Config(evaluate=EvaluateConfig(on=(str(file),)))
    with pytest.raises(error):
        evaluate(config, Artifacts(tmp_path), models=[str(model)])


def test_nan_weights_are_a_model_error(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "nan")
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.model.norm.weight.data.fill_(math.nan)
    model.save_pretrained(folder)
    with pytest.raises(ModelError):
        evaluate_file(tmp_path, folder, SAMPLE)


def test_a_run_that_is_removed_while_it_is_scored_gets_no_report(tmp_path: Path, model: Path) -> None:
    artifacts = Artifacts(tmp_path / "artifacts")
    run = artifacts.run("gone")
    shutil.copytree(model, run.model)

    class Removing(Progress):
        def stage(self, name: str, total: float | None = None, unit: str = "") -> None:
            if name.startswith("scoring"):
                shutil.rmtree(run.path, ignore_errors=True)

    (tmp_path / "text.txt").write_text(SAMPLE)
    config = Config(evaluate=EvaluateConfig(on=(str(tmp_path / "text.txt"),)))
    with pytest.raises(ModelError, match="'gone' was removed while it was scored"):
        evaluate(config, artifacts, Removing(), models=["gone"])
    assert not run.path.exists()


def test_a_damaged_second_model_is_named_before_the_first_is_scored(tmp_path: Path, model: Path) -> None:
    """Else the first one's scores would be lost."""
    said: list[str] = []

    class Told(Progress):
        def stage(self, name: str, *_: object) -> None:
            said.append(name)

    folder = make_model(tmp_path / "nan")
    broken = AutoModelForCausalLM.from_pretrained(folder)
    broken.model.norm.weight.data.fill_(math.nan)
    broken.save_pretrained(folder)
    (tmp_path / "text.txt").write_text(SAMPLE, "utf-8")
    config = Config(evaluate=EvaluateConfig(on=(f"text={tmp_path / 'text.txt'}",)))
    with pytest.raises(ModelError, match=r"nan.*NaN"):
        evaluate(config, Artifacts(tmp_path / "artifacts"), Told(), models=[str(model), str(folder)])
    assert not any("scoring" in name for name in said)


def test_the_time_that_is_announced_counts_each_model_by_its_size(tmp_path: Path, model: Path) -> None:
    larger = make_model(tmp_path / "larger", hidden_size=256)
    named = [find_model(str(folder), Artifacts(tmp_path)) for folder in (model, larger)]
    sizes = [weights_at_hand(entry, Artifacts(tmp_path)) for entry in named]
    counted = [AutoModelForCausalLM.from_pretrained(folder).num_parameters() for folder in (model, larger)]
    assert sizes == counted and sizes[1] > 2 * sizes[0]


def test_a_tokenizer_bigger_than_the_embedding_is_a_model_error(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "small", vocab_size=300)
    with pytest.raises(ModelError, match=r"tokenizer|embedding"):
        evaluate_file(tmp_path, folder, SAMPLE)


@pytest.mark.slow
def test_a_long_document_in_parts_gives_the_figures_of_the_whole(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SAMPLE * 60
    whole = evaluate_file(tmp_path, model, text, context=64).models[0].texts[0]
    monkeypatch.setattr("pretrain_cli.data.encoding.encoder.PIECE_CHARACTERS", 500)
    monkeypatch.setattr("pretrain_cli.evaluation.encoding.PIECE_CHARACTERS", 500)
    monkeypatch.setattr("pretrain_cli.data.reading.input_files.BLOCK_BYTES", 700)
    parts = evaluate_file(tmp_path, model, text, context=64).models[0].texts[0]
    assert (parts.tokens, parts.bytes, parts.documents) == (whole.tokens, whole.bytes, 1)
    assert parts.loss == pytest.approx(whole.loss, abs=1e-6)
    assert parts.bits_per_byte_interval == pytest.approx(whole.bits_per_byte_interval, abs=1e-6)


@pytest.mark.slow
def test_a_run_of_another_artifact_folder_is_called_by_its_name(tmp_path: Path) -> None:
    names = []
    for place in ("one", "two"):
        run = Artifacts(tmp_path / place).run(f"run-{place}")
        make_model(run.model)
        write_json(run.record, {"base": ""})
        names.append(str(run.model if place == "one" else run.path))
    text = tmp_path / "text.txt"
    text.write_text(SAMPLE, "utf-8")
    config = Config(evaluate=EvaluateConfig(on=(str(text),), samples=0))
    result = evaluate(config, Artifacts(tmp_path / "three"), models=names)
    assert [model.name for model in result.models] == ["run-one", "run-two"]
    assert result.report == Path(names[0]).parent / "evaluation" / "report.json"


def test_models_that_are_compared_see_as_much_of_the_text(tmp_path: Path, model: Path) -> None:
    run = Artifacts(tmp_path).run("short")
    make_model(run.model)
    write_json(run.record, {"base": str(model), "sequence_length": 32})
    (tmp_path / "latest").write_text("short\n")
    text = tmp_path / "text.txt"
    text.write_text(SAMPLE, "utf-8")
    result = evaluate(Config(evaluate=EvaluateConfig(on=(str(text),), samples=0)), Artifacts(tmp_path))
    assert [scored.settings["context"] for scored in result.models] == [32, 32]
    assert result.comparison[0].difference == 0


def test_an_interval_holds_the_document_that_has_most_of_the_text() -> None:
    """Of thirty documents, drawn whole, a third of the draws would leave out the one that the figure is about."""

    def blocks(count: int, bits: float) -> Sums:
        return np.tile([1024 * bits * math.log(2), 256, 0, 0, 1024.0], (count, 1))

    documents = [blocks(200, 2.0), *(blocks(1, 0.2) for _ in range(29))]
    pieces = units(documents)
    assert len(pieces) == 229
    found = interval(bits_per_byte, pieces)
    assert 1.6 < found.low < found.high < 1.9
    assert len(units(documents[1:])) == 29, "documents of one size are drawn whole"
