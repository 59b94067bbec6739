"""GGUF files where they are used: in llama.cpp, whose greedy text has to be the one that transformers writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config, GenerateConfig
from pretrain_cli.errors import ModelError
from pretrain_cli.exporting.run import export
from pretrain_cli.generation.run import generate
from pretrain_cli.tokenizer.train import train_tokenizer
from tests.tiny import SAMPLE, make_model

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.slow
torch.set_num_threads(1)
PROMPT = "Call me"


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def taught(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows one text by heart, so that rounding its weights doesn't change what it writes."""
    folder = make_model(
        tmp_path_factory.mktemp("taught") / request.param, request.param, initializer_range=0.05, vocab_size=400
    )
    train_tokenizer([SAMPLE] * 4, 400, folder)
    ids = AutoTokenizer.from_pretrained(folder)(SAMPLE, return_tensors="pt").input_ids[:, :100]
    model = AutoModelForCausalLM.from_pretrained(folder).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(120):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def write(model: str, artifacts: Path, prompts: list[str], on_text=None, **settings: object):
    config = Config(generate=GenerateConfig(**{"max_tokens": 24, **settings}))
    return generate(config, Artifacts(artifacts), prompts=prompts, model=model, on_text=on_text).samples


@pytest.mark.parametrize("quantization", ["f16", "q8_0"])
def test_an_exported_gguf_writes_in_llama_cpp_what_transformers_writes(
    taught: Path, quantization: str, tmp_path: Path
) -> None:
    result = export(Artifacts(tmp_path), to="gguf", run=str(taught), quantization=quantization)
    assert "greedy tokens as transformers writes them" in result.checked
    # A bare file: llama.cpp cuts the prompt into tokens itself, and puts BOS in front as the tokenizer does.
    by_llama = write(str(result.files[0]), tmp_path, [PROMPT], greedy=True, engine="llama.cpp")[0]
    by_torch = write(str(taught), tmp_path, [PROMPT], greedy=True)[0]
    assert by_llama.text == by_torch.text == SAMPLE[len(PROMPT) :][: len(by_torch.text)]


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
