"""Checks that an export opens where it will be used, and writes the same text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pretrain_cli.errors import ModelError, first_line
from pretrain_cli.model.greedy import end_ids
from pretrain_cli.model.llama_cpp import CHECKED_CONTEXT, greedy_text, is_installed, serve, token_ids
from pretrain_cli.tokenizer.load import open_tokenizer

PROMPT = "The"
CHECKED_TOKENS = 24
CLOSE = 0.1
"""Allowed difference of log-probabilities: f16 rounds by less than 0.01 and q8_0 by about 0.03; another activation
function changes them by 0.2."""
SPLIT_TEXTS = (
    "In 1851, it's said: 3.5 miles",
    "\n\n  off\tNantucket — naïve café, Ωmega!",
    "WHALE's I'LL don't\r\n    x = 2048  # a**2",
    " a leading space, and one after ",
    "日本語のテキスト、数据 한국어",
    "🐋👩‍👩‍👧 e\u0301 ﬁ ½ №",
    "مرحبا हिन्दी שלום",
)
"""Texts that tokenizers split in different ways."""


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
    except Exception as error:  # a stranger's config makes transformers raise nearly anything
        raise ModelError(
            f"The exported tokenizer doesn't open: {first_line(error)}.",
            "The config.json or the tokenizer of the model is damaged: use a complete copy.",
        ) from error


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
    server = serve(file, CHECKED_CONTEXT)
    answer = greedy_text(server, file, PROMPT, CHECKED_TOKENS)
    found = answer.text
    doubt = _other_ids(server, open_tokenizer(folder / "tokenizer.json"))
    same = next((at for at, pair in enumerate(zip(expected, found, strict=False)) if len(set(pair)) > 1), None)
    if same != 0:
        off = _mean_difference(answer.logprobs, logprobs)
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


def _other_ids(server: Any, tokenizer: Tokenizer) -> str:
    """Whether llama.cpp makes the ids of text that the tokenizer makes, in words."""
    tokenizer.encode_special_tokens = True
    texts = (PROMPT, *SPLIT_TEXTS)
    wrong = [text for text in texts if token_ids(server, text) != tokenizer.encode(text, add_special_tokens=False).ids]
    if not wrong:
        return "; it makes the tokenizer's ids of text"
    return f"; of {len(wrong)} of {len(texts)} test texts it makes other tokens than the tokenizer, as of {wrong[0]!r}"


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
    from transformers import GenerationConfig

    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    # Its own settings may ask for beams without number, or forbid tokens.
    ends = sorted(end_ids(None, model.generation_config.eos_token_id)) or None
    model.generation_config = GenerationConfig(eos_token_id=ends)
    made = model.generate(
        ids, do_sample=False, max_new_tokens=CHECKED_TOKENS, output_logits=True, return_dict_in_generate=True
    )
    written = made.sequences[0, ids.shape[1] :].tolist()
    logprobs = [float(logits[0].log_softmax(-1)[token]) for token, logits in zip(written, made.logits, strict=True)]
    whole: str = tokenizer.decode(made.sequences[0], skip_special_tokens=True)
    text = whole[len(tokenizer.decode(ids[0], skip_special_tokens=True)) :]
    return text, list(zip(written, logprobs, strict=True))
