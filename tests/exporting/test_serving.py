"""An export's last lines serve it, and an OpenAI-style request is answered as the model itself would."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.exporting.run import export
from pretrain_cli.exporting.serving import serving_commands
from tests.support.tiny import make_model

PROMPT = "Call me"


def ask(address: str, model: str) -> str:
    """What a server with OpenAI's interface makes of the prompt, greedily."""
    wanted = {"model": model, "prompt": PROMPT, "max_tokens": 8, "temperature": 0}
    request = urllib.request.Request(
        f"{address}/v1/completions", json.dumps(wanted).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        text: str = json.load(answer)["choices"][0]["text"]
    return text


def written_by(folder: Path) -> str:
    """The same with transformers itself."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids: Any = tokenizer(PROMPT, return_tensors="pt")
    made = model.generate(**ids, max_new_tokens=8, do_sample=False, pad_token_id=2)[0, ids["input_ids"].shape[1] :]
    text: str = tokenizer.decode(made, skip_special_tokens=True)
    return text


@contextlib.contextmanager
def running(words: list[str], address: str) -> Iterator[None]:
    """A server as a process, from the moment that it answers."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
                break
            time.sleep(0.2)
        else:
            raise AssertionError(process.stderr.read() if process.stderr else "")
        yield
    finally:
        process.kill()
        process.communicate()


def test_the_commands_of_each_format() -> None:
    folder = Path("with space", "exports")
    assert serving_commands("hf", "first", folder)[0] == f"transformers serve '{folder.resolve()}'"
    gguf = serving_commands("gguf", "first", folder, folder / "first-f16.gguf")
    assert gguf == ["llama-server --model 'with space/exports/first-f16.gguf'"]
    assert serving_commands("gguf", "a", folder, Path("a.gguf"), 256) == ["llama-server --model a.gguf --ctx-size 256"]
    assert serving_commands("hf", "a", folder, None, 256)[1].endswith("exports' --max-model-len 256")
    made, run = serving_commands("ollama", "First@step-000100", folder)
    assert made == "ollama create first-step-000100 -f 'with space/exports/Modelfile'"
    assert run == 'ollama run first-step-000100 "..."'


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("fastapi") is None, reason="needs transformers[serving]")
def test_transformers_serves_an_export(tmp_path: Path) -> None:
    base = make_model(tmp_path / "tiny")
    result = export(Artifacts(tmp_path / "artifacts"), run=str(base))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program, *words = shlex.split(result.serve[0])
    command = [str(Path(sys.executable).with_name(program)), *words, "--device", "cpu", "--port", str(port)]
    with running(command, f"http://localhost:{port}"):
        assert ask(f"http://localhost:{port}", words[-1]) == written_by(base)


@pytest.mark.slow
def test_llama_cpp_serves_an_export(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By llama.cpp's own server, which the package xllamacpp runs inside of this process."""
    xllamacpp = pytest.importorskip("xllamacpp")
    base = make_model(tmp_path / "tiny")
    result = export(Artifacts(tmp_path / "artifacts"), to="gguf", run=str(base))
    assert shlex.split(result.serve[0]) == ["llama-server", "--model", str(result.files[0])]
    settings = xllamacpp.CommonParams()
    settings.model.path = str(result.files[0])
    settings.n_ctx, settings.cpuparams.n_threads = 128, 1
    server = xllamacpp.Server(settings)
    assert ask(server.listening_address, "tiny") == written_by(base)
    del server
    capfd.readouterr()
