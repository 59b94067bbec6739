"""Keeps the libraries from writing to the screen. Their errors still arrive as exceptions."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings

from pretrain_cli.delayed import delay


def quiet_environment(debug: bool = False) -> None:
    """Turn off bars and warnings before the libraries are imported; worker processes inherit it.

    Args:
        debug: let the libraries' logs and warnings through.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    if debug:
        warnings.simplefilter("default")
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    else:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        # torch's loggers write to stderr themselves, errors still do; an empty value makes its import fail.
        os.environ["TORCH_LOGS"] = os.environ.get("TORCH_LOGS") or "-all"
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").setLevel(logging.ERROR)
        for name in ("bitsandbytes", "matplotlib"):
            logging.getLogger(name).setLevel(logging.ERROR)
    block_hub_kernels()
    delay("bitsandbytes")  # peft imports it for full training too, which took a sixth of the time until a run begins


def block_hub_kernels() -> None:
    """Let no library import the package kernels, which downloads code from the Hub and runs it.

    On a CPU with AVX512-BF16 bitsandbytes does so when it is imported, as peft does before every training. A process
    that has imported kernels itself keeps it.
    """
    sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]  # None: not to be imported, for `import`


def quiet_import() -> contextlib.AbstractContextManager[io.StringIO]:
    """Keep off stdout what libraries print while they are imported, as transformers does under WANDB_MODE=offline."""
    return contextlib.redirect_stdout(io.StringIO())


def quiet_libraries() -> None:
    """Turn off transformers' bars and notices once it is imported."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
