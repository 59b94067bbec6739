"""Runs lm-eval's tasks on an opened model."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pretrain_cli.errors import DataError, MissingDependencyError, UsageError, first_line
from pretrain_cli.evaluation.models import OpenModel
from pretrain_cli.optional import to_install
from pretrain_cli.progress import Progress


def require_lm_eval() -> None:
    """Raise MissingDependencyError where lm-eval isn't installed: before texts are scored, not after."""
    if importlib.util.find_spec("lm_eval") is None:
        raise MissingDependencyError(
            "Tasks need lm-eval, which isn't installed.", f"Install it: {to_install(extra='lm-eval')}"
        )


def run_tasks(model: OpenModel, tasks: Sequence[str], progress: Progress) -> dict[str, Any]:
    """lm-eval's results by task; an entry that is a folder means the tasks defined in it, and works offline.

    Raises:
        UsageError: there is no such task, or a folder defines none.
        DataError: a task's data can't be loaded.
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    folders = [task for task in tasks if Path(task).is_dir()]
    names = [task for task in tasks if task not in folders]
    manager = TaskManager(include_path=folders or None, include_defaults=bool(names))
    for folder in folders:
        progress.warn(f"lm-eval runs the code that the tasks in {folder} bring along.")
        found = TaskManager(include_path=folder, include_defaults=False).all_subtasks
        if not found:
            raise UsageError(f"No task is defined in {folder}.", "A task is a .yaml file with a line 'task: NAME'.")
        names += found
    progress.stage(f"lm-eval on {model.name}: {', '.join(names)}")
    try:
        # It prints its results, which belong only in the report.
        with contextlib.redirect_stdout(io.StringIO()):
            wrapped = HFLM(pretrained=model.model, tokenizer=_tokenizer(model), prefix_token_id=model.first_id)
            results = lm_eval.simple_evaluate(
                model=wrapped, tasks=names, task_manager=manager, log_samples=False, bootstrap_iters=1000
            )
    except KeyError as error:
        raise UsageError(f"lm-eval has no task {error}.", "See its list: lm-eval ls tasks") from error
    except OSError as error:
        raise DataError(
            f"The data of {', '.join(names)} can't be loaded: {first_line(error)}.",
            "Most tasks load theirs from the Hub; a folder with your own tasks on local files needs no network.",
        ) from error
    progress.end_stage()
    return dict(results["results"])


def _tokenizer(model: OpenModel) -> Any:
    from transformers import PreTrainedTokenizerFast

    end = min(model.end_ids, default=model.first_id)
    names = {name: model.tokenizer.id_to_token(id_) for name, id_ in (("bos", model.first_id), ("eos", end))}
    return PreTrainedTokenizerFast(
        tokenizer_object=model.tokenizer, bos_token=names["bos"], eos_token=names["eos"], pad_token=names["eos"]
    )
