"""GGUF files where they are used: in llama.cpp, whose greedy text has to be the one that transformers writes."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config, GenerateConfig
from pretrain_cli.errors import ModelError
from pretrain_cli.exporting.check import compare_with_llama_cpp
from pretrain_cli.exporting.run import export
from pretrain_cli.generation.run import generate
from pretrain_cli.model.gguf_reading import convert_gguf
from pretrain_cli.model.gguf_writing import write_gguf
from pretrain_cli.tokenizer.train import train_tokenizer
from tests.support.tiny import OTHER_SHAPES, SAMPLE, make_model

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.slow
torch.set_num_threads(1)
PROMPT = "Call me"


def teach(folder: Path) -> Path:
    """Make the model know one text by heart, so that rounding its weights doesn't change what it writes."""
    ids = AutoTokenizer.from_pretrained(folder)(SAMPLE, return_tensors="pt").input_ids[:, :100]
    model = AutoModelForCausalLM.from_pretrained(folder).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(120):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def taught(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_model(
        tmp_path_factory.mktemp("taught") / request.param, request.param, initializer_range=0.05, vocab_size=400
    )
    train_tokenizer([SAMPLE] * 4, 400, folder)
    return teach(folder)


def make_sentencepiece(folder: Path) -> None:
    """A tokenizer.json as Llama 2's: spaces marked, bytes for unknown characters, each way to merge a piece listed."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=390, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False, max_token_length=8
    )
    tokenizer.train_from_iterator(SAMPLE.split() * 4, trainer)
    whole = json.loads(tokenizer.to_str())
    vocab, model = whole["model"]["vocab"], whole["model"]
    made = dict.fromkeys("".join(merge if isinstance(merge, list) else merge.split(" ")) for merge in model["merges"])
    model["merges"] = [
        [piece[:at], piece[at:]]
        for piece in made
        for at in range(1, len(piece))
        if piece[:at] in vocab and piece[at:] in vocab
    ]
    whole["added_tokens"] = [token for token in whole["added_tokens"] if token["id"] < 3]
    whole["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write(model: str, artifacts: Path, prompts: list[str], on_text=None, **settings: object):
    config = Config(generate=GenerateConfig(**{"max_tokens": 24, **settings}))
    return generate(config, Artifacts(artifacts), prompts=prompts, model=model, on_text=on_text).samples


@pytest.mark.parametrize("quantization", ["f16", "q8_0"])
def test_an_exported_gguf_writes_in_llama_cpp_what_transformers_writes(
    taught: Path, quantization: str, tmp_path: Path
) -> None:
    result = export(Artifacts(tmp_path), to="gguf", run=str(taught), quantization=quantization)
    assert "greedy tokens are those of transformers" in result.checked
    # A bare file: llama.cpp cuts the prompt into tokens itself, and puts BOS in front as the tokenizer does.
    by_llama = write(str(result.files[0]), tmp_path, [PROMPT], greedy=True, engine="llama.cpp")[0]
    by_torch = write(str(taught), tmp_path, [PROMPT], greedy=True)[0]
    assert by_llama.text == by_torch.text == SAMPLE[len(PROMPT) :][: len(by_torch.text)]


@pytest.mark.parametrize(
    "family, changes",
    [
        *OTHER_SHAPES,
        ("llama", {"sentencepiece": True}),
    ],
)
def test_other_shapes_and_tokenizers_write_the_same_in_llama_cpp(family: str, changes: dict, tmp_path: Path) -> None:
    sentencepiece = changes.pop("sentencepiece", False)
    folder = make_model(tmp_path / "model", family, initializer_range=0.05, vocab_size=400, **changes)
    if sentencepiece:
        make_sentencepiece(folder)
    teach(folder)
    result = export(Artifacts(tmp_path), to="gguf", run=str(folder))
    assert result.checked.startswith("run in llama.cpp: its 24 greedy tokens are those of transformers, log-prob")
    assert "other tokens" not in result.checked
    by_llama = write(str(result.files[0]), tmp_path, [PROMPT], greedy=True, max_tokens=60, engine="llama.cpp")[0]
    by_torch = write(str(folder), tmp_path, [PROMPT], greedy=True, max_tokens=60)[0]
    assert by_llama.text == by_torch.text and by_llama.ids == by_torch.ids


def test_a_file_that_computes_something_else_is_found_out(taught: Path, tmp_path: Path) -> None:
    """Doubled in the last norm, the logits choose the same tokens, with other probabilities."""
    file = export(Artifacts(tmp_path), to="gguf", run=str(taught)).files[0]
    weights = load_file(taught / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * 0.3
    other = shutil.copytree(taught, tmp_path / "other")
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="probabilities"):
        compare_with_llama_cpp(other, file)


@pytest.mark.parametrize("bare", [True, False])
def test_llama_cpp_cuts_a_prompt_that_is_longer_than_the_context(taught: Path, bare: bool, tmp_path: Path) -> None:
    whole = taught
    if bare:
        whole = export(Artifacts(tmp_path), to="gguf", run=str(taught)).files[0]
    config = Config(generate=GenerateConfig(max_tokens=8, engine="llama.cpp"))
    result = generate(config, Artifacts(tmp_path), prompts=[SAMPLE * 20], model=str(whole))
    assert result.samples[0].tokens >= 1
    assert len(result.warnings) == 1 and "context" in result.warnings[0]


def test_llama_cpp_says_why_it_ended(taught: Path, tmp_path: Path) -> None:
    ends = {
        "stop": {"stop": ("years",)},
        "length": {"max_tokens": 3, "stop": ("never there",)},
        "context": {"max_tokens": 100_000},
    }
    for finish, settings in ends.items():
        assert write(str(taught), tmp_path, [PROMPT], greedy=True, engine="llama.cpp", **settings)[0].finish == finish


def test_folders_of_one_name_keep_files_of_their_own(taught: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "else" / taught.name, seed=5)
    texts = [
        write(str(folder), tmp_path, [PROMPT], greedy=True, engine="llama.cpp")[0].text for folder in (taught, other)
    ]
    assert texts[0] != texts[1]
    assert texts[1] == write(str(other), tmp_path, [PROMPT], greedy=True, max_tokens=24)[0].text


def test_llama_cpp_writes_the_same_alone_in_a_batch_and_streamed(taught: Path, tmp_path: Path) -> None:
    pieces: dict[int, str] = {}

    def collect(index: int, piece: str) -> None:
        pieces[index] = pieces.get(index, "") + piece

    prompts = [PROMPT, "some", ""]
    together = write(str(taught), tmp_path, prompts, collect, engine="llama.cpp", seed=5)
    alone = [write(str(taught), tmp_path, [p], engine="llama.cpp", seed=5)[0] for p in prompts]
    assert [sample.text for sample in together] == [sample.text for sample in alone]
    assert [pieces.get(index, "") for index in range(3)] == [sample.text for sample in together]


def test_llama_cpp_shows_characters_whole(taught: Path, tmp_path: Path) -> None:
    pieces: list[str] = []
    prompt = SAMPLE[: SAMPLE.index(" Café")]
    sample = write(
        str(taught), tmp_path, [prompt], lambda _, piece: pieces.append(piece), greedy=True, engine="llama.cpp"
    )[0]
    assert sample.text == "".join(pieces) and "日本語" in sample.text
    assert not any("\ufffd" in piece for piece in pieces)


def test_llama_cpp_stops_penalises_and_gives_probabilities(taught: Path, tmp_path: Path) -> None:
    stopped = write(str(taught), tmp_path, [PROMPT], greedy=True, engine="llama.cpp", stop=("years",))[0]
    assert stopped.finish == "stop" and stopped.text == " Ishmael. Some "
    settings = {"greedy": True, "probabilities": True, "max_tokens": 4, "repetition_penalty": 1.1}
    ours, theirs = (
        write(str(taught), tmp_path, [PROMPT], engine=engine, **settings)[0] for engine in ("torch", "llama.cpp")
    )
    assert [token.id for token in ours.probabilities] == [token.id for token in theirs.probabilities]
    for one, other in zip(ours.probabilities, theirs.probabilities, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=0.02)


def test_a_damaged_gguf_file_is_a_model_error(taught: Path, tmp_path: Path) -> None:
    file = tmp_path / "cut.gguf"
    export(Artifacts(tmp_path), to="gguf", run=str(taught), output=tmp_path / "whole")
    file.write_bytes(next((tmp_path / "whole").glob("*.gguf")).read_bytes()[:5000])
    with pytest.raises(ModelError):
        write(str(file), tmp_path, ["x"], engine="llama.cpp")


def negate(weights: Path) -> None:
    """Give a safetensors file other weights, with the size and the time that it had."""
    status = weights.stat()
    tensors = {name: -tensor for name, tensor in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert weights.stat().st_size == status.st_size


def test_a_model_that_is_replaced_is_converted_again_whatever_its_size_and_time(taught: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(taught, tmp_path / "model")
    before = write(str(folder), tmp_path, [PROMPT], greedy=True, engine="llama.cpp")[0]
    negate(folder / "model.safetensors")
    after = write(str(folder), tmp_path, [PROMPT], greedy=True, engine="llama.cpp")[0]
    # The first token alone: such weights know nothing, and their rounding decides what comes later.
    assert after.ids[0] == write(str(folder), tmp_path, [PROMPT], greedy=True)[0].ids[0] != before.ids[0]
    assert len(list(tmp_path.rglob("bases/**/*.gguf"))) == 1


def test_a_gguf_file_that_is_replaced_is_converted_again_whatever_its_size_and_time(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", vocab_size=400, head_dim=8)
    first = export(Artifacts(tmp_path), to="gguf", run=str(model), output=tmp_path / "one").files[0]
    negate(model / "model.safetensors")
    second = export(Artifacts(tmp_path), to="gguf", run=str(model), output=tmp_path / "two").files[0]
    status = first.stat()
    before = convert_gguf(first, Artifacts(tmp_path / "artifacts"))
    first.write_bytes(second.read_bytes())
    os.utime(first, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = convert_gguf(first, Artifacts(tmp_path / "artifacts"))
    name = "model.layers.0.mlp.up_proj.weight"
    one, two = (load_file(folder / "model.safetensors")[name] for folder in (before, after))
    assert first.stat().st_size == status.st_size and torch.equal(one, -two)
    assert convert_gguf(first, Artifacts(tmp_path / "artifacts")) == after


@pytest.mark.parametrize("key", [b"llama.embedding_length", b"llama.block_count"])
def test_a_gguf_file_whose_tensors_do_not_fit_its_shape_is_refused(tmp_path: Path, key: bytes) -> None:
    """transformers would put random weights in their place."""
    folder = make_model(tmp_path / "tiny", num_hidden_layers=1)
    write_gguf(folder, tmp_path / "tiny.gguf", "f16")
    content = (tmp_path / "tiny.gguf").read_bytes()
    value = content.index(key) + len(key) + 4  # after the type
    larger = struct.pack("<I", 2 * struct.unpack_from("<I", content, value)[0])
    (tmp_path / "tiny.gguf").write_bytes(content[:value] + larger + content[value + 4 :])
    with pytest.raises(ModelError, match=r"tiny\.gguf (is damaged: it lacks|can't be read as GGUF)"):
        convert_gguf(tmp_path / "tiny.gguf", Artifacts(tmp_path / "artifacts"))
    assert not list((tmp_path / "artifacts").rglob("*.safetensors"))
