"""Checks that an export opens where it will be used, and writes the same text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pretrain_cli.errors import ModelError
from pretrain_cli.model.llama_cpp import greedy_texts, is_installed

PROMPT = "The"
CHECKED_TOKENS = 24
CLOSE = 0.1
"""Allowed difference of log-probabilities: f16 rounds by less than 0.01 and q8_0 by about 0.03; another activation
function changes them by 0.2."""
SPLIT_TEXT = "In 1851, it's said: 3.5 miles\n\n  off\tNantucket — naïve café, Ωmega, 日本語 🐋! WHALE's\n    x = 2048"
"""Text that tokenizers split in different ways."""


def open_with_transformers(folder: Path) -> tuple[Any, Any]:
    """The model and tokenizer in ``folder``, opened as everyone opens them.

    Raises:
        ModelError: it doesn't open, or weights are missing or not finite.
    """
    from transformers import AutoTokenizer

    from pretrain_cli.model.load import load_model

    model = load_model(folder)
    try:
        return model, AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"The exported tokenizer doesn't open: {error}.", "Report this as a bug.") from error


def compare_with_llama_cpp(folder: Path, file: Path) -> str:
    """Run ``file`` in llama.cpp, and say how far its greedy text is what transformers writes from ``folder``.

    llama.cpp splits the prompts into tokens itself, as it will where the file is used.

    Raises:
        ModelError: llama.cpp can't run the file, the texts differ from the first character on, or the probabilities
            differ.
    """
    if not is_installed():
        return "written, not run: the package xllamacpp isn't installed (extra llama-cpp)"
    model, tokenizer = open_with_transformers(folder)
    expected, logprobs = _greedy_text(model, tokenizer)
    answers = greedy_texts(file, {PROMPT: CHECKED_TOKENS, SPLIT_TEXT: 1})
    found = answers[PROMPT].text
    wrongly_split = [text for text in answers if answers[text].prompt_tokens != len(tokenizer(text).input_ids)]
    doubt = "; it splits some text into other tokens than the tokenizer does" if wrongly_split else ""
    same = next((at for at, pair in enumerate(zip(expected, found, strict=False)) if len(set(pair)) > 1), None)
    if same != 0:
        off = _mean_difference(answers[PROMPT].logprobs, logprobs)
        doubt = f", log-probabilities differ by {off:.3f}{doubt}"
        if off > CLOSE:
            raise ModelError(
                f"llama.cpp gives other probabilities than transformers: their logarithms differ by {off:.2f}.",
                "The file isn't the same model: export with --to hf, and report this as a bug.",
            )
    if same is None:
        return f"run in llama.cpp: its {CHECKED_TOKENS} greedy tokens are those of transformers{doubt}"
    if same == 0:
        raise ModelError(
            f"llama.cpp writes {found[:20]!r} after {PROMPT!r} where transformers writes {expected[:20]!r}.",
            "Export with --to hf, or without --quantization q8_0.",
        )
    return f"run in llama.cpp: its greedy text is that of transformers for {same} of {len(expected)} characters{doubt}"


def _mean_difference(found: list[tuple[int, float]], expected: list[tuple[int, float]]) -> float:
    """Mean difference of the log-probabilities of the tokens that both wrote, up to the first that differs."""
    differences = []
    for (token, one), (other_token, other) in zip(found, expected, strict=False):
        if token != other_token:
            break
        differences.append(abs(one - other))
    return sum(differences) / len(differences) if differences else 0.0


def _greedy_text(model: Any, tokenizer: Any) -> tuple[str, list[tuple[int, float]]]:
    """What transformers writes after the prompt, and each token with its log-probability."""
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    made = model.generate(
        ids, do_sample=False, max_new_tokens=CHECKED_TOKENS, output_logits=True, return_dict_in_generate=True
    )
    written = made.sequences[0, ids.shape[1] :].tolist()
    logprobs = [float(logits[0].log_softmax(-1)[token]) for token, logits in zip(written, made.logits, strict=True)]
    whole: str = tokenizer.decode(made.sequences[0], skip_special_tokens=True)
    text = whole[len(tokenizer.decode(ids[0], skip_special_tokens=True)) :]
    return text, list(zip(written, logprobs, strict=True))
