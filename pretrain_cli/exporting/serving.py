"""Names the commands that serve an exported model, or chat with it."""

from __future__ import annotations

import shlex
from pathlib import Path

from pretrain_cli.artifacts import ollama_name


def serving_commands(
    form: str, name: str, folder: Path, file: Path | None = None, context: int | None = None
) -> list[str]:
    """Commands of programs that open what was exported, the simplest first.

    Args:
        form: "hf", "gguf" or "ollama".
        name: of the model.
        folder: that was written.
        file: the .gguf file in it, where there is one.
        context: tokens that it was trained in, where its config has room for more.
    """

    def at_most(option: str) -> list[str]:
        return [] if context is None else [option, str(context)]

    if form == "hf":
        place = str(folder.resolve())
        vllm = ("vllm", "serve", place, *at_most("--max-model-len"))
        return [shlex.join(("transformers", "serve", place)), shlex.join(vllm)]
    if form == "ollama":
        called = ollama_name(name)
        return [shlex.join(("ollama", "create", called, "-f", str(folder / "Modelfile"))), f'ollama run {called} "..."']
    return [shlex.join(("llama-server", "--model", str(file), *at_most("--ctx-size")))]
