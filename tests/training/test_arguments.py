"""What transformers and accelerate refuse of the keys under [trainer] is told in two lines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from pretrain_cli.errors import ConfigError, DataError
from pretrain_cli.training.arguments import _check_types, _read_settings, blaming, trainer_refusals

EVIL = [
    {"torch_compile_backend": "evil"},
    {"accelerator_config": "nowhere.json"},
    {"nonsense": 1},
    {"accelerator_config": {"split_batches": "x", "nonsense": 1}},
]


@pytest.mark.parametrize("given", EVIL)
def test_what_transformers_refuses_names_the_keys(tmp_path: Path, given: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught, trainer_refusals(given):
        Trainer(nn.Linear(2, 2), TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", **given))
    assert next(iter(given)) in caught.value.hint and "transformers refuses" in caught.value.message


def test_other_errors_stay_what_they_are() -> None:
    for error in (DataError("x"), MemoryError()):
        with pytest.raises(type(error)), trainer_refusals({"a": 1}):
            raise error
    with pytest.raises(KeyError), trainer_refusals({}):
        raise KeyError


WRONG = [
    ("max_grad_norm", "abc"),
    ("max_grad_norm", "1.5"),
    ("logging_nan_inf_filter", "sometimes"),
    ("label_smoothing_factor", [0.1]),
    ("report_to", 3),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_value_of_another_type_is_refused_before_training(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"trainer\.{key} can't be "):
        _check_types({key: value})


def test_values_of_the_stated_types_pass() -> None:
    _check_types({
        "max_grad_norm": 1, "save_strategy": "steps", "optim": "adamw_torch", "report_to": ["wandb"],
        "lr_scheduler_kwargs": {"num_cycles": 2}, "fsdp": "full_shard", "unknown": object(),
    })  # fmt: skip


def test_an_error_in_a_library_names_the_keys_and_one_of_ours_stays_a_bug() -> None:
    def fails(given: dict[str, object]) -> None:
        with blaming(given):
            torch.optim.Adam(nn.Linear(2, 2).parameters(), betas=(5.0, 0.9))

    with pytest.raises(ConfigError, match=r"adam.py of a library: ValueError: Invalid beta") as caught:
        fails({"adam_beta1": 5.0})
    assert "adam_beta1" in caught.value.hint
    with pytest.raises(ValueError):
        fails({})
    with pytest.raises(AttributeError), blaming({"adam_beta1": 5.0}):
        _check_types(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["accelerator_config", "fsdp_config", "deepspeed"])
def test_settings_in_a_file_are_read_as_a_file_only(tmp_path: Path, key: str) -> None:
    """A run's own config may name them: transformers read a device until there was no memory."""
    (tmp_path / "a.json").write_text('{"split_batches": true}', "utf-8")
    assert _read_settings({key: str(tmp_path / "a.json")}) == {key: {"split_batches": True}}
    assert _read_settings({key: '{"a": 1}', "run_name": "a"}) == {key: '{"a": 1}', "run_name": "a"}
    for name in (os.devnull, str(tmp_path), str(tmp_path / "none")):
        with pytest.raises(ConfigError, match="can't be read"):
            _read_settings({key: name})
