"""Runs a .gguf file with llama.cpp, in this process."""

from __future__ import annotations

import importlib.util
import json
import queue
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain_cli.errors import ModelError
from pretrain_cli.model.rope import is_known_rope, rope_settings
from pretrain_cli.processes import available_cores

FAMILIES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""transformers' model type -> llama.cpp's architecture."""
CHECKED_CONTEXT = 256
TOKENIZE_S = 30.0
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
LOOK_S = 0.1
"""Ctrl-C is noticed within this time."""


def check_config(config: dict[str, Any]) -> None:
    """Raise ModelError if llama.cpp would compute something other than the model in this config.json."""
    family, activation = config.get("model_type", ""), config.get("hidden_act", "silu")
    if family not in FAMILIES:
        raise ModelError(f"A '{family}' model can't be written as GGUF.", "Export it with --to hf.")
    if activation != "silu":
        raise ModelError(
            f"llama.cpp can't compute the model's activation '{activation}', only silu.",
            "Use --to hf, or --engine torch. To train a model for llama.cpp: --set model.activation=silu",
        )
    if not is_known_rope(config):
        raise ModelError(
            f"A rotary embedding of type '{rope_settings(config)['rope_type']}' can't be written as GGUF.",
            "Export with --to hf, and convert with llama.cpp.",
        )


def is_installed() -> bool:
    """Whether the package xllamacpp, which has llama.cpp's binaries, is installed."""
    return importlib.util.find_spec("xllamacpp") is not None


def serve(file: Path, context: int) -> Any:
    """llama.cpp's server for ``file`` with room for ``context`` tokens; 0: as many as the model was made for.

    Raises:
        ModelError: the file is damaged, or of an architecture that llama.cpp doesn't know.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx = context
    params.n_parallel = 1
    params.cpuparams.n_threads = available_cores()
    params.cpuparams_batch.n_threads = available_cores()
    params.warmup = False
    params.verbosity = -1
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise ModelError(
            f"llama.cpp can't open {file}: {error}",
            "Write the file again: ptk export --to gguf, or use --engine torch.",
        ) from error


def stream(server: Any, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What llama.cpp sends, part by part. It computes in a thread, so that Ctrl-C stops it at the next token."""
    parts: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue()
    stopped = threading.Event()

    def receive(part: dict[str, Any]) -> bool:
        parts.put(part)
        return stopped.is_set()

    def compute() -> None:
        try:
            server.handle_completions(request, receive)
            parts.put(None)
        except Exception as error:
            parts.put(error)

    thread = threading.Thread(target=compute, daemon=True)
    thread.start()
    try:
        while True:
            try:
                part = parts.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            if part is None:
                return
            if isinstance(part, BaseException):
                raise part
            yield part
    finally:
        stopped.set()
        thread.join()


@dataclass(frozen=True)
class Answer:
    """What llama.cpp wrote, and (id, log-probability) of each token of it."""

    text: str
    logprobs: list[tuple[int, float]]


def greedy_text(server: Any, file: Path, prompt: str, count: int) -> Answer:
    """The ``count`` most probable tokens after ``prompt``.

    Raises:
        ModelError: llama.cpp can't run the file.
    """
    request = {"prompt": prompt, "max_tokens": count, "temperature": 0.0, "logprobs": 1}
    done = server.handle_completions(request)
    if "error" in done:
        raise ModelError(f"llama.cpp can't run {file}: {done['error'].get('message')}.", "Export with --to hf.")
    choice = done["choices"][0]
    logprobs = [(token["id"], token["logprob"]) for token in (choice["logprobs"] or {}).get("content", ())]
    return Answer(str(choice["text"]), logprobs)


def token_ids(server: Any, text: str) -> list[int]:
    """The ids that llama.cpp makes of ``text``, nothing added. It tells them by HTTP alone, on this machine."""
    body = json.dumps({"content": text, "add_special": False, "parse_special": False}).encode()
    request = urllib.request.Request(f"{server.listening_address}/tokenize", body, {"Content-Type": "application/json"})
    with NO_PROXY.open(request, timeout=TOKENIZE_S) as answer:
        return [int(token) for token in json.load(answer)["tokens"]]
