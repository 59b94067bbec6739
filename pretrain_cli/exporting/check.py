"""Does what was written open where it will be used, and write the same?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pretrain_cli.errors import ModelError
from pretrain_cli.model.llama_cpp import greedy_texts, is_installed

PROMPT = "The"
CHECKED_TOKENS = 24
PARTED = "In 1851, it's said: 3.5 miles\n\n  off\tNantucket — naïve café, Ωmega, 日本語 🐋! WHALE's\n    x = 2048"
"""Text that tokenizers part in different ways."""


def open_with_transformers(folder: Path) -> tuple[Any, Any]:
    """The model and tokenizer of ``folder``, opened the way everyone will, all weights there.

    Raises:
        ModelError: it doesn't open, or weights are missing or not finite.
    """
    from transformers import AutoTokenizer

    from pretrain_cli.model.load import load_model

    model = load_model(folder)
    try:
        return model, AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"The exported tokenizer doesn't open: {error}.", "Report this as a bug.") from error


def compare_with_llama_cpp(folder: Path, file: Path) -> str:
    """Run ``file`` in llama.cpp and say how far its greedy text is the one that transformers writes from ``folder``.

    llama.cpp cuts the prompts into tokens itself, as it will where the file is used.

    Raises:
        ModelError: llama.cpp can't run the file, or the texts differ from their first character on.
    """
    if not is_installed():
        return "written, not run: the package xllamacpp isn't installed (extra llama-cpp)"
    model, tokenizer = open_with_transformers(folder)
    expected = _greedy_text(model, tokenizer)
    answers = greedy_texts(file, {PROMPT: CHECKED_TOKENS, PARTED: 1})
    found = answers[PROMPT].text
    wrongly_parted = [text for text in answers if answers[text].prompt_tokens != len(tokenizer(text).input_ids)]
    doubt = "; it parts some text into other tokens than the tokenizer does" if wrongly_parted else ""
    same = next((at for at, pair in enumerate(zip(expected, found, strict=False)) if len(set(pair)) > 1), None)
    if same is None:
        return f"run in llama.cpp: {CHECKED_TOKENS} greedy tokens as transformers writes them{doubt}"
    if same == 0:
        raise ModelError(
            f"llama.cpp writes {found[:20]!r} after {PROMPT!r} where transformers writes {expected[:20]!r}.",
            "Export with --to hf, or without --quantization q8_0.",
        )
    return f"run in llama.cpp: greedy text as transformers writes it for {same} of {len(expected)} characters{doubt}"


def _greedy_text(model: Any, tokenizer: Any) -> str:
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    written = model.generate(ids, do_sample=False, max_new_tokens=CHECKED_TOKENS)[0]
    whole: str = tokenizer.decode(written, skip_special_tokens=True)
    return whole[len(tokenizer.decode(ids[0], skip_special_tokens=True)) :]
