"""Makes sure that plain AutoTokenizer gives the ids that a tokenizer.json gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pretrain_cli.errors import first_line
from pretrain_cli.storage import read_json, write_json
from pretrain_cli.tokenizer.load import open_tokenizer

CONFIG = "tokenizer_config.json"
PLAIN = "PreTrainedTokenizerFast"
"""The class that takes a tokenizer.json as it is; those of an architecture may put steps of their own in its place."""


def opens_as_is(folder: Path) -> bool:
    """Whether the class that the tokenizer in ``folder`` names takes its tokenizer.json as it is."""
    settings = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    return settings.get("tokenizer_class") in (PLAIN, "TokenizersBackend")


def settle_class(folder: Path, texts: Sequence[str]) -> str:
    """Let the tokenizer in ``folder`` open with ``AutoTokenizer`` as what its tokenizer.json says.

    Args:
        folder: of a model; its tokenizer_config.json is changed where the class that it names makes other ids.
        texts: that the ids are compared on.

    Returns:
        What has to be said; empty where the ids agree at once.
    """
    wrong = _differs(folder, texts) if texts else ""
    if not wrong:
        return ""
    before = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    named = str(before.get("tokenizer_class") or "the architecture's own class")
    write_json(folder / CONFIG, {**before, "tokenizer_class": PLAIN})
    if not (still := _differs(folder, texts)):
        return (
            f"As {named}, AutoTokenizer would make other ids than those that were trained on ({wrong}): the model's "
            f"folder names {PLAIN} instead."
        )
    write_json(folder / CONFIG, before)
    return (
        f"Plain AutoTokenizer makes other ids than those that were trained on ({still}). ptk reads tokenizer.json "
        "itself; so should other programs: tokenizers.Tokenizer.from_file"
    )


def _differs(folder: Path, texts: Sequence[str]) -> str:
    """In words, how far plain AutoTokenizer's ids are others; empty where all agree."""
    from transformers import AutoTokenizer

    try:
        opened = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds of errors
        return f"it can't open it: {first_line(error)}"
    own = open_tokenizer(folder / "tokenizer.json")
    own.encode_special_tokens = False
    others = sum(
        list(opened(text, add_special_tokens=False).input_ids) != own.encode(text, add_special_tokens=False).ids
        for text in texts
    )
    return f"{others} of {len(texts)} texts" if others else ""
