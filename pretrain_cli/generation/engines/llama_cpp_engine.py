"""Writes text with llama.cpp in this process, from a .gguf file; torch is imported only where that has to be made."""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import GenerateConfig
from pretrain_cli.errors import MissingDependencyError, ModelError, UsageError
from pretrain_cli.formatting import exact
from pretrain_cli.generation.prompts import check_prompt, prompt_ids
from pretrain_cli.generation.results import ALTERNATIVES, GeneratedText, OnText, TokenProbability
from pretrain_cli.generation.text_stream import BROKEN
from pretrain_cli.model.files import weight_files
from pretrain_cli.model.llama_cpp import check_config, is_installed, serve, stream
from pretrain_cli.model.names import NamedModel, open_folders
from pretrain_cli.optional import to_install
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.refusals import check_no_links
from pretrain_cli.storage import read_json, source_hash
from pretrain_cli.tokenizer.load import TokenizerInfo, open_tokenizer, read_tokenizer

SAMPLERS = ("penalties", "temperature", "top_k", "top_p", "min_p")
"""In the order in which `generation.sampling` applies them."""
FINISHES = {"eos": "eos", "word": "stop", "limit": "length"}
"""Why llama.cpp ended -> what `GeneratedText.finish` calls it."""
WRITTEN = re.compile(r"[0-9a-f]{32}\.gguf")
"""Files that ptk wrote for llama.cpp, named by what they were made of."""
SMALLEST_CONTEXT = 512
PENALIZED_TOKENS = 65_536
"""How far back the repetition penalty looks, beyond any context here; llama.cpp keeps a buffer of this size."""


@dataclass(frozen=True)
class Reader:
    """Our tokenizer for a model folder; for a bare .gguf file llama.cpp tokenizes."""

    tokenizer: Tokenizer
    info: TokenizerInfo
    context: int


class LlamaCppWriter:
    """A `Writer`: a .gguf file and the llama.cpp server that runs it, reopened where a longer context is needed."""

    def __init__(self, name: str, file: Path, reader: Reader | None) -> None:
        self.name, self.file, self.reader = name, file, reader
        self._server: Any = None
        self._context = 0

    def write(
        self,
        prompts: Sequence[str],
        config: GenerateConfig,
        warn: Callable[[str], None],
        on_text: OnText | None,
        started: float,
    ) -> list[GeneratedText]:
        """Every sample of every prompt, in order, one after the other; the first token is timed from ``started``."""
        given = [self._prompt(prompt, config, warn) for prompt in prompts]
        # A token has at least one byte; llama.cpp itself stops at the context that the model was made for.
        longest = max(len(ids.encode() if isinstance(ids, str) else ids) for ids in given)
        server = self._open(longest + config.max_tokens + 1)
        samples: list[GeneratedText] = []
        for prompt, ids in zip(prompts, given, strict=True):
            for number in range(config.samples):
                kept, seed = ids, config.seed + number
                while True:
                    try:
                        samples.append(self._sample(server, kept, seed, prompt, config, len(samples), on_text, started))
                        break
                    except _TooLongError as error:
                        kept = error.cut(kept, config.max_tokens)
                        warn(error.warning)
        return samples

    def _prompt(self, prompt: str, config: GenerateConfig, warn: Callable[[str], None]) -> list[int] | str:
        if self.reader is None:
            check_prompt(prompt)
            if config.suffix:
                raise UsageError(
                    "To fill in a middle, llama.cpp needs a tokenizer.json beside the .gguf file.",
                    "Give the folder of the model instead.",
                )
            return prompt
        ids, warning = prompt_ids(
            prompt, config, self.reader.tokenizer, self.reader.info, self.reader.context, self.name
        )
        if warning:
            warn(warning)
        return ids

    def _open(self, tokens: int) -> Any:
        """The server with room for ``tokens``, doubled where it has to grow: a conversation seldom reopens it."""
        limit = self.reader.context if self.reader else tokens
        if self._server is None or min(tokens, limit) > self._context:
            self._server, self._context = None, max(SMALLEST_CONTEXT, 1 << (tokens - 1).bit_length())
            if self.reader:
                self._context = min(self._context, limit)
            self._server = serve(self.file, self._context)
        return self._server

    def _sample(
        self,
        server: Any,
        ids: list[int] | str,
        seed: int,
        prompt: str,
        config: GenerateConfig,
        index: int,
        on_text: OnText | None,
        started: float,
    ) -> GeneratedText:
        text, finish, first, last = "", "length", 0.0, 0.0
        written: list[int] = []
        probabilities: list[TokenProbability] = []
        for part in stream(server, _request(ids, config, seed)):
            if "error" in part:
                raise _refused(part["error"], self.name)
            choice, more = part["choices"][0], part["__verbose"]
            written += more["tokens"]
            probabilities += [_probability(token) for token in (choice["logprobs"] or {}).get("content", ())]
            piece = choice["text"]
            if more["stop"]:
                finish = FINISHES.get(more["stop_type"], "length")
                piece = piece.rstrip(BROKEN)  # half a character at the end is left out
            else:
                last = time.perf_counter()
                first = first or last
            text += piece
            if piece and on_text is not None:
                on_text(index, piece)
        count = more["tokens_predicted"]
        return GeneratedText(
            prompt=prompt,
            text=text,
            tokens=count,
            seconds_to_first_token=round(first - started, 4) if first else 0.0,
            tokens_per_second=round((count - 1) / (last - first), 2) if last > first else 0.0,
            finish="context" if finish == "length" and count < config.max_tokens else finish,
            seed=seed,
            model=self.name,
            ids=written,
            probabilities=probabilities,
        )


def open_llama_cpp(named: NamedModel, artifacts: Artifacts, progress: Progress = SILENT) -> LlamaCppWriter:
    """Open ``named`` with llama.cpp: its .gguf file, or an f16 copy that is written once and kept.

    Raises:
        MissingDependencyError: the package xllamacpp isn't installed.
        ModelError: the model is damaged, or of an architecture that can't be written as GGUF.
    """
    if not is_installed():
        raise MissingDependencyError(
            "The engine llama.cpp needs the package xllamacpp.", f"Install it: {to_install(extra='llama-cpp')}"
        )
    if Path(named.location).is_file():
        return LlamaCppWriter(named.name, Path(named.location), None)
    location, tokenizer_folder = open_folders(named, artifacts)
    folder = Path(location)
    if not folder.is_dir():
        raise ModelError(f"'{named.name}' isn't on this disk.", "Give llama.cpp a run, a folder or a .gguf file.")
    info = read_tokenizer(tokenizer_folder)
    settings = read_json(folder / "config.json")
    check_config(settings)
    context = int(settings.get("max_position_embeddings", 2048))
    reader = Reader(open_tokenizer(info.file), info, context)
    return LlamaCppWriter(named.name, _converted(named, folder, tokenizer_folder, artifacts, progress), reader)


def _converted(
    named: NamedModel, folder: Path, tokenizer_folder: Path, artifacts: Artifacts, progress: Progress
) -> Path:
    """The model as an f16 file under ``artifacts.bases``, written again when the model's own files have other bytes."""
    name = named.name.replace("@", "-")
    if named.run is None:  # folders elsewhere may have the same name
        name += "-" + hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    source = source_hash([*weight_files(folder), folder / "config.json", tokenizer_folder / "tokenizer.json"])
    file = artifacts.bases / f"{name}-f16" / f"{source}.gguf"
    if not file.is_file():
        from pretrain_cli.model.gguf_writing import write_gguf

        progress.note(f"writing {file}, which llama.cpp reads from now on")
        check_no_links(file.parent)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_gguf(folder, file, "f16", tokenizer_folder)
        for old in file.parent.glob("*.gguf"):
            if old != file and WRITTEN.fullmatch(old.name):
                old.unlink()
    return file


def _request(prompt: list[int] | str, config: GenerateConfig, seed: int) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "max_tokens": config.max_tokens,
        "temperature": 0.0 if config.greedy else config.temperature,
        "top_k": config.top_k,
        "top_p": config.top_p,
        "min_p": config.min_p,
        "repeat_penalty": config.repetition_penalty,
        "repeat_last_n": PENALIZED_TOKENS,
        "samplers": list(SAMPLERS),
        "seed": seed,
        "stop": [text for text in config.stop if text],
        "stream": True,
        "cache_prompt": False,  # earlier prompts would change the last bits
        "verbose": True,
        "return_tokens": True,
        **({"logprobs": ALTERNATIVES} if config.probabilities else {}),
    }


def _probability(token: dict[str, Any]) -> TokenProbability:
    alternatives = [(other["token"], math.exp(other["logprob"])) for other in token["top_logprobs"]]
    return TokenProbability(token["id"], token["token"], math.exp(token["logprob"]), alternatives)


def _refused(error: dict[str, Any], name: str) -> Exception:
    if error.get("type") == "exceed_context_size_error":
        return _TooLongError(error["n_prompt_tokens"], error["n_ctx"])
    return ModelError(f"llama.cpp can't continue with '{name}': {error.get('message')}.", "Try --engine torch.")


class _TooLongError(Exception):
    """A prompt that llama.cpp itself has split into more ``tokens`` than there is room for."""

    def __init__(self, tokens: int, context: int) -> None:
        super().__init__(tokens, context)
        self.tokens, self.context = tokens, context
        self.warning = (
            f"The prompt has {exact(tokens)} tokens and the context is {exact(context)}: its beginning was left out."
        )

    def cut(self, prompt: list[int] | str, max_tokens: int) -> list[int] | str:
        """The end of ``prompt`` that should fit; where it doesn't, llama.cpp refuses again and less is kept."""
        room = min(max_tokens, max(1, self.context // 2))
        kept = int(0.95 * len(prompt) * (self.context - room) / self.tokens)
        return prompt[len(prompt) - max(1, kept) :]
