"""Uploads an exported folder to the Hugging Face Hub."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from pretrain_cli.errors import ModelError, UsageError, first_line

ANSWER_S = 8.0
"""The Hub has to answer within this time; its client would wait forever."""


def check_hub(repository: str) -> None:
    """Check before anything is written that the name is valid, somebody is logged in, and the Hub answers.

    Raises:
        UsageError: an impossible name, no valid login, or the Hub is switched off.
        ModelError: the Hub can't be reached.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UsageError(f"'{repository}' can't be the name of a repository.", "Write it as owner/name.") from error
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        raise UsageError("The Hub is switched off by HF_HUB_OFFLINE.", "Unset it, or export without --push-to-hub.")
    token = get_token()
    if not token:
        raise UsageError(
            "Nobody is logged in to the Hugging Face Hub.", "Log in with `hf auth login`, or set HF_TOKEN."
        )
    _ask_who(token)


def push(folder: Path, files: Sequence[Path], repository: str) -> str:
    """Upload ``files`` of ``folder`` as one commit to ``repository``, which is private if it is new.

    Returns its address. What else is in the folder may be anything of the user's, and stays here.

    Raises:
        UsageError: the Hub refuses.
        ModelError: the Hub can no longer be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=address.repo_id,
            folder_path=folder,
            commit_message="Upload by ptk export",
            allow_patterns=[glob.escape(file.relative_to(folder).as_posix()) for file in files],
        )
    except HfHubHTTPError as error:
        raise UsageError(
            f"The Hub refuses the upload to '{repository}': {first_line(error)}.",
            "Check the owner's name, and that the token may write.",
        ) from error
    except Exception as error:  # each HTTP library under the Hub's client has its own connection errors
        raise _unreachable(error) from error
    return str(address)


def _ask_who(token: str) -> None:
    from huggingface_hub import constants, get_session

    try:
        answer = get_session().get(
            f"{constants.ENDPOINT}/api/whoami-v2", headers={"authorization": f"Bearer {token}"}, timeout=ANSWER_S
        )
    except Exception as error:
        raise _unreachable(error) from error
    if answer.status_code in (401, 403):
        raise UsageError("The Hub doesn't accept the token.", "Log in again with `hf auth login`, or set HF_TOKEN.")


def _unreachable(error: Exception) -> ModelError:
    return ModelError(
        f"The Hugging Face Hub can't be reached ({type(error).__name__}).",
        "Check the network, or export without --push-to-hub and upload the folder later: hf upload",
    )
