"""Exported models open with other libraries and compute what the run's model does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GgufConfig

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.cli.export import _next
from pretrain_cli.errors import ModelError, UsageError
from pretrain_cli.exporting.run import export
from pretrain_cli.manifest import Manifest, write_manifest
from pretrain_cli.manifest_records import InputRecord, SourceRecord
from pretrain_cli.model.gguf_reading import convert_gguf
from pretrain_cli.storage import write_json
from pretrain_cli.tokenizer.chat import read_chat_template
from tests.support.tiny import make_model


def test_an_hf_export_opens_and_has_the_same_weights(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "tiny")
    result = export(Artifacts(tmp_path / "artifacts"), to="hf", run=str(folder))
    first, second = (AutoModelForCausalLM.from_pretrained(path) for path in (folder, result.path))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_gguf_export_reads_back_with_the_same_logits(tmp_path: Path, family: str) -> None:
    pytest.importorskip("gguf")
    # transformers reads no head size from a qwen3 GGUF and takes 128.
    folder = make_model(tmp_path / "tiny", family, head_dim=128 if family == "qwen3" else 8)
    result = export(Artifacts(tmp_path / "artifacts"), to="gguf", run=str(folder))
    file = result.files[0]
    read = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, quantization_config=GgufConfig(gguf_file=file.name, dequantize=True)
    )
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder)(ids).logits
        found = read(ids).logits
    np.testing.assert_allclose(found.float(), expected, atol=0.05)


def test_an_ollama_export_has_a_modelfile_beside_the_weights(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    folder = make_model(tmp_path / "tiny")
    result = export(Artifacts(tmp_path / "artifacts"), to="ollama", run=str(folder), quantization="q8_0")
    assert (result.path / "Modelfile").read_text().startswith(f"FROM ./{result.files[0].name}")


def test_a_chat_template_goes_along_into_gguf_and_back(tmp_path: Path) -> None:
    """Beside the tokenizer, or in its config as in older models; without one the prompt stays as it is."""
    gguf = pytest.importorskip("gguf")
    template = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
    for name, file in {"beside": "chat_template.jinja", "inside": "tokenizer_config.json", "none": ""}.items():
        folder = make_model(tmp_path / name)
        if name == "beside":
            (folder / file).write_text(template)
        elif name == "inside":
            write_json(folder / file, {**json.loads((folder / file).read_text()), "chat_template": template})
        result = export(Artifacts(tmp_path / "artifacts"), to="ollama", run=str(folder))
        fields = gguf.GGUFReader(result.files[0]).fields
        assert fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_F16
        found = fields["tokenizer.chat_template"].contents() if "tokenizer.chat_template" in fields else ""
        assert found == (template if file else "")
        assert ("TEMPLATE" in (result.path / "Modelfile").read_text()) == (not file)
        back = read_chat_template(convert_gguf(result.files[0], Artifacts(tmp_path / "back")))
        assert (back.text if back is not None else "") == found


@pytest.mark.parametrize(
    ("shape", "record", "context"),
    [
        ({"max_position_embeddings": 512}, {"base": "", "sequence_length": 64}, 64),
        ({"max_position_embeddings": 512}, {"base": "owner/name", "sequence_length": 64}, 512),
        ({"max_position_embeddings": 512, "sliding_window": 96}, {"base": "owner/name"}, 96),
    ],
)
def test_ollama_gets_the_context_that_the_model_has(
    tmp_path: Path, shape: dict[str, int], record: dict[str, object], context: int
) -> None:
    pytest.importorskip("gguf")
    artifacts = Artifacts(tmp_path / "artifacts")
    run = artifacts.run("First")
    make_model(run.model)
    config = run.model / "config.json"
    write_json(config, {**json.loads(config.read_text()), **shape})
    write_json(run.record, {**record, "versions": {}})
    result = export(artifacts, to="ollama", run="First")
    written = (result.path / "Modelfile").read_text()
    assert f"PARAMETER num_ctx {context}\n" in written and f"PARAMETER num_predict {min(context, 256)}\n" in written
    assert _next(result)[0] == f"ollama create first -f {result.path / 'Modelfile'}"


def test_a_checkpoint_is_exported_without_what_only_training_needs(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "artifacts")
    run = artifacts.run("first")
    folder = make_model(run.checkpoint(3))
    for name in ("trainer_state.json", "ptk.json"):
        (folder / name).write_text("{}")
    (folder / "manifest.json").write_text('{"step": 3, "files": {}}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    write_json(run.record, {"steps": 9, "versions": {}})
    result = export(artifacts, run="first", checkpoint="3")
    names = {file.name for file in result.files}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"}
    assert not names & {"trainer_state.json", "ptk.json", "manifest.json"}
    assert "after step 3 of 9" in (result.path / "README.md").read_text()


def test_a_base_and_an_older_format_can_be_exported_too(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "artifacts")
    run, base = artifacts.run("first"), make_model(tmp_path / "base")
    make_model(run.model, seed=1)
    write_json(run.record, {"base": str(base)})
    artifacts.latest.write_text("first")
    weights = AutoModelForCausalLM.from_pretrained(base).state_dict()
    torch.save(weights, base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    exported = AutoModelForCausalLM.from_pretrained(export(artifacts, run="base").path).state_dict()
    assert exported.keys() == weights.keys() and all(torch.equal(exported[key], weights[key]) for key in weights)


def test_a_rotary_embedding_that_gguf_cannot_hold_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    rope = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 10000.0, "original_max_position_embeddings": 64}
    with pytest.raises(ModelError, match="yarn"):
        export(Artifacts(tmp_path), to="gguf", run=str(make_model(tmp_path / "model", rope_parameters=rope)))


def test_an_activation_that_llama_cpp_would_replace_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    with pytest.raises(ModelError, match="relu2"):
        export(Artifacts(tmp_path), to="gguf", run=str(make_model(tmp_path / "model", "qwen3", hidden_act="relu2")))


@pytest.mark.parametrize("damage", ["cut", "nan", "tokenizer"])
def test_a_damaged_model_is_not_written_as_gguf(damage: str, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    folder = make_model(tmp_path / "model", **({"vocab_size": 300} if damage == "tokenizer" else {}))
    file = folder / "model.safetensors"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "nan":
        model = AutoModelForCausalLM.from_pretrained(folder)
        model.model.norm.weight.data[3] = float("nan")
        model.save_pretrained(folder)
    with pytest.raises(ModelError):
        export(Artifacts(tmp_path), to="gguf", run=str(folder), output=tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.gguf"))


def test_an_unknown_format_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exe"):
        export(Artifacts(tmp_path), to="exe")


def manifest(**fields: object) -> Manifest:
    """A manifest with next to nothing in it but ``fields``."""
    documents, read = {"in": 0, "kept": 0}, {"in": 0, "kept": 0}
    tokens = dict.fromkeys(("encoded", "marks", "repeated", "made", "train", "validation"), 0)
    return Manifest.model_validate(
        {
            "fingerprint": "",
            "settings": {"sequence_length": 64},
            "tokenizer": {"fingerprint": "", "vocab_size": 400},
            "train": {},
            "statistics": {"fill": 1.0, "bytes_per_token": 4.0, "pieces_per_row": 1.0},
            "ledger": {"documents": documents, "bytes": read, "tokens": tokens, "padding": 0},
            **fields,
        }
    )


def test_only_files_that_gave_text_are_told() -> None:
    one = (InputRecord(path="/home/someone/whale.txt", size=12, hash="ab"),)
    assert manifest(inputs=one).told_inputs == "whale.txt"
    kinds = {"pdf": {"files": 11, "bytes": 1}, "txt": {"files": 20, "bytes": 1}}
    account = {"files": 33, "read": kinds, "skipped": [{"reason": "empty", "kind": "txt", "files": 2, "bytes": 0}]}
    assert manifest(inputs=one * 33, input_files=account).told_inputs == "31 files (txt 20, pdf 11)"
    assert manifest().told_inputs == ""


def test_the_card_tells_what_the_records_say(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "artifacts")
    run = artifacts.run("first")
    make_model(run.model)
    write_json(
        run.record,
        {"base": "owner/base", "data_fingerprint": "f00d", "tokens": 1024, "steps": 8, "versions": {"torch": "2"}},
    )
    prepared = manifest(
        fingerprint="f00d",
        inputs=(InputRecord(path="/home/someone/whale.txt", size=12, hash="ab"),),
        sources={"sea": SourceRecord(documents=3, tokens=99)},
    )
    write_manifest(artifacts.manifest, prepared)
    run.config.write_text("[train]\nlearning_rate = 0.5\n")
    run.metrics.write_text('{"step": 4, "loss": 3.0}\n{"step": 8, "loss": 2.5, "validation_loss": 2.75}\n{"st')
    (run.path / "curves.png").write_bytes(b"picture")
    texts = [{"name": "validation", "bits_per_byte": 1.25, "perplexity": 9.0, "accuracy": 0.5}]
    write_json(run.evaluation / "report.json", {"models": [{"name": "first", "texts": texts}]})
    result = export(artifacts, run="first")
    card = (result.path / "README.md").read_text()
    for told in (
        *("license:", "base_model: owner/base", "`f00d`", "whale.txt, 12 bytes", "sea: 3 documents, 99 tokens"),
        *(
            "tokens: 1,024",
            "| 8 |  | 2.5000 | 2.7500 |",
            "validation | 1.2500",
            "learning_rate = 0.5",
            "from_pretrained",
        ),
    ):
        assert told in card
    assert "/home/someone" not in card and (result.path / "curves.png").read_bytes() == b"picture"
    write_manifest(artifacts.manifest, prepared.model_copy(update={"fingerprint": "another"}))
    assert "other data" in (export(artifacts, run="first").path / "README.md").read_text()
    artifacts.manifest.write_text("{")
    assert "no manifest that can be read" in (export(artifacts, run="first").path / "README.md").read_text()
