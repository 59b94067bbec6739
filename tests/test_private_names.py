"""Each private name of another library that ptk leans on is where it was, and none is used that isn't listed."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import typer._completion_shared
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

import pretrain_cli
from pretrain_cli.private_names import PRIVATE_NAMES, PrivateName

PACKAGE = Path(pretrain_cli.__file__).parent
OWNERS: dict[str, Any] = {
    "transformers.Trainer": transformers.Trainer,
    "transformers.TrainingArguments": transformers.TrainingArguments,
    "transformers.PreTrainedModel": transformers.PreTrainedModel,
    "torch.nn.Module": torch.nn.Module,
    "torch.ops.mkldnn": torch.ops.mkldnn,
    "typer._completion_shared": typer._completion_shared,
}


@pytest.mark.parametrize("entry", PRIVATE_NAMES, ids=lambda entry: f"{entry.owner}.{entry.name}")
def test_a_private_name_that_ptk_leans_on_is_still_there(entry: PrivateName) -> None:
    where = f"{entry.owner}.{entry.name} (used in {entry.used_in}) has to be what {entry.does}"
    assert (PACKAGE / entry.used_in).is_file(), where
    if entry.owner == "wandb-core":
        import wandb

        program = (Path(wandb.__file__).parent / "bin" / "wandb-core").read_bytes()
        # The log is JSON: the message and the status's name and value stand apart in the program.
        for words in entry.name.replace('"', "").replace("status:200", "status").split(","):
            assert words.encode() in program, where
    elif entry.name == "_workers":
        assert "self._workers" in inspect.getsource(_MultiProcessingDataLoaderIter), where
    elif entry.name == "FakeTensorMode":
        from torch._subclasses.fake_tensor import FakeTensorMode

        assert callable(FakeTensorMode), where
    elif entry.owner == "transformers.distributed":
        folder = Path(transformers.__file__).parent / "distributed"
        assert any(entry.name in path.read_text("utf-8") for path in folder.glob("*.py")), where
    elif entry.name in ("_loss_shifts_labels", "_created_lr_scheduler", "_n_gpu", "_compiled_call_impl"):
        assert entry.name in inspect.getsource(OWNERS[entry.owner]), where
    else:
        found = getattr(OWNERS[entry.owner], entry.name, None)
        assert found is not None, where
        if entry.parameters is not None:
            assert tuple(inspect.signature(found).parameters)[1:] == entry.parameters, where


def test_every_private_name_of_trainer_that_is_used_is_listed() -> None:
    listed = {entry.name for entry in PRIVATE_NAMES if entry.owner == "transformers.Trainer"}
    theirs = inspect.getsource(transformers.Trainer)
    files = {entry.used_in for entry in PRIVATE_NAMES if entry.owner == "transformers.Trainer"}
    nodes = [node for file in files for node in ast.walk(ast.parse((PACKAGE / file).read_text("utf-8")))]
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    used |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    private = {name for name in used if name.startswith("_") and not name.startswith("__")}
    assert {name for name in private if f"self.{name}" in theirs or f"def {name}(" in theirs} == listed


def test_every_private_operator_of_torch_that_is_used_is_listed() -> None:
    listed = {entry.name for entry in PRIVATE_NAMES}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch.ops."):
                assert node.attr in ("ops", "mkldnn") or node.attr in listed, f"{path}: {ast.unparse(node)}"
            if isinstance(node, ast.ImportFrom) and "._" in f".{node.module}" and node.module != "__future__":
                assert all(name.name in listed for name in node.names), f"{path}: {node.module}"
