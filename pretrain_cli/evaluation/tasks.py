"""How does the model do on lm-eval's tasks?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pretrain_cli.errors import MissingDependencyError, UsageError
from pretrain_cli.evaluation.opening import OpenModel
from pretrain_cli.progress import Progress


def run_tasks(model: OpenModel, tasks: Sequence[str], progress: Progress) -> dict[str, Any]:
    """lm-eval's results by task; an entry that is a folder adds the tasks defined in it, and works offline.

    Raises:
        MissingDependencyError: lm-eval isn't installed.
        UsageError: there is no such task.
    """
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingDependencyError(
            "Tasks are run by lm-eval, which isn't installed.", "Install it: pip install 'pretrain-cli[lm-eval]'"
        ) from error
    folders = [task for task in tasks if Path(task).is_dir()]
    names = [task for task in tasks if task not in folders]
    manager = TaskManager(include_path=folders or None)
    names += [file.stem for folder in folders for file in sorted(Path(folder).glob("*.yaml"))]
    progress.stage(f"lm-eval on {model.name}")
    wrapped = HFLM(pretrained=model.model, tokenizer=PreTrainedTokenizerFast(tokenizer_object=model.tokenizer))
    try:
        results = lm_eval.simple_evaluate(model=wrapped, tasks=names, task_manager=manager)
    except KeyError as error:
        raise UsageError(f"lm-eval knows no task {error}.", "See its list: lm-eval ls tasks") from error
    progress.end_stage()
    return dict(results["results"])
