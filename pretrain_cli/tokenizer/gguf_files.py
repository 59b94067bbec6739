"""Reads a model's own small files out of a .gguf file that ptk wrote them into."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pretrain_cli.storage import read_json, write_json, write_text
from pretrain_cli.tokenizer.chat import TEMPLATE, read_chat_template

KEYS = {
    "config.json": "ptk.config",
    "generation_config.json": "ptk.generation_config",
    "tokenizer_config.json": "ptk.tokenizer_config",
    "special_tokens_map.json": "ptk.special_tokens_map",
    "tokenizer.json": "tokenizer.huggingface.json",
}
"""Files, and the keys of a .gguf file that hold them; the last one is in GGUF's own list of keys."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
CHAT_TEMPLATE = "tokenizer.chat_template"
"""GGUF's key of the chat template, by which llama.cpp and Ollama write down a chat."""
CODE = "auto_map"
"""Key of a file that names Python code to run."""


def kept_files(file: Path) -> dict[str, str]:
    """Names and texts of the files inside ``file``; none where it holds none, isn't whole, or gguf isn't installed."""
    try:
        from gguf import GGUFReader

        fields = GGUFReader(file).fields
        texts = {name: fields[key].contents() for name, key in KEYS.items() if key in fields}
        files = {name: _without_code(text) for name, text in texts.items()}
        return {**files, TEMPLATE: fields[CHAT_TEMPLATE].contents()} if files and CHAT_TEMPLATE in fields else files
    except Exception:  # a damaged file makes gguf raise nearly anything: whoever needs the rest of it says so
        return {}


def _without_code(text: str) -> str:
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("not an object")
    if CODE not in values:
        return text
    return json.dumps({key: value for key, value in values.items() if key != CODE}, ensure_ascii=False)


def keep_files(writer: Any, folder: Path, tokenizer: Path) -> None:
    """Add the small files of the model in ``folder``, and of ``tokenizer``'s folder, to a GGUFWriter.

    A chat template goes where other programs look for it.
    """
    template = read_chat_template(tokenizer)
    if template is not None:
        writer.add_chat_template(template.text)
    for name, key in KEYS.items():
        file = (tokenizer if name in TOKENIZER_FILES else folder) / name
        if file.is_file():
            writer.add_string(key, file.read_text(encoding="utf-8"))


def write_tokenizer_files(files: dict[str, str], folder: Path) -> bool:
    """Write those of ``files`` that are a tokenizer's into ``folder``; whether a whole tokenizer was among them."""
    if not {"tokenizer.json", "tokenizer_config.json"} <= files.keys():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*TOKENIZER_FILES, TEMPLATE):
        if name in files:
            write_text(folder / name, files[name])
    return True


def drop_made_up(folder: Path, file: Path) -> None:
    """Take the tokens out of a tokenizer in ``folder`` that transformers added and the .gguf ``file`` doesn't have.

    Its embedding has no row for them.
    """
    from gguf import GGUFReader

    field = GGUFReader(file).fields.get("tokenizer.ggml.tokens")
    spec = read_json(folder / "tokenizer.json")
    own = len(field.data) if field is not None else 0
    made_up = {token["content"] for token in spec.get("added_tokens", []) if own and token["id"] >= own}
    if not made_up:
        return
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] not in made_up]
    spec["model"]["vocab"] = {text: index for text, index in spec["model"]["vocab"].items() if index < own}
    if spec["model"].get("unk_token") in made_up:
        spec["model"]["unk_token"] = None
    write_json(folder / "tokenizer.json", spec)
    settings = read_json(folder / "tokenizer_config.json")
    kept = {key: value for key, value in settings.items() if value not in made_up and key != "added_tokens_decoder"}
    # The class of the architecture would add them again.
    write_json(folder / "tokenizer_config.json", {**kept, "tokenizer_class": "PreTrainedTokenizerFast"})
