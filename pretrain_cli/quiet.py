"""How are the libraries kept from writing into the screen?"""

from __future__ import annotations

import os


def quiet_libraries() -> None:
    """Turn off transformers' and datasets' own bars and notices; errors still come as exceptions."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
