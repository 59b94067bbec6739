"""What is wrong with a model is said before it is used."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pretrain_cli.errors import ConfigError, ModelError
from pretrain_cli.model import devices
from pretrain_cli.model.config_checks import check_trains
from pretrain_cli.model.load import load_model, read_model_config
from pretrain_cli.model.probes import check_causal
from tests.support.tiny import make_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


def test_a_whole_model_opens_in_evaluation_mode(folder: Path) -> None:
    model = load_model(folder, dtype=torch.bfloat16, tokenizer_size=300)
    assert not model.training and model.dtype == torch.bfloat16


def test_missing_weights_config_or_folder_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        load_model(folder)
    with pytest.raises(ModelError):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("index", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
@pytest.mark.parametrize("name", ["{elsewhere}/w.safetensors", "../elsewhere/w.safetensors", "..", "a\\w", ""])
def test_weights_outside_their_folder_are_no_part_of_a_model(
    folder: Path, tmp_path: Path, index: str, name: str
) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(elsewhere / "w.safetensors")
    if index.startswith("pytorch"):
        torch.save(weights, folder / "pytorch_model-00001-of-00002.bin")
    named = dict.fromkeys(weights, name.format(elsewhere=elsewhere))
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": named}))
    with pytest.raises(ModelError, match="isn't a file beside it"):
        load_model(folder)


def test_truncated_weights_are_named(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 5000)
    with pytest.raises(ModelError, match="damaged or cut short"):
        load_model(folder)


def test_nan_weights_and_missing_tensors_are_named(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "q_proj" in name)
    tensors[name][0, 0] = float("nan")
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ModelError, match="1 NaN or infinite"):
        load_model(folder)
    del tensors[name]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ModelError, match="lack 1 tensor,"):
        load_model(folder)


def test_a_tokenizer_larger_than_the_embedding_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="tokenizer has 5,000"):
        load_model(folder, tokenizer_size=5000)


def test_devices_that_are_not_there_are_config_errors() -> None:
    assert devices.choose_device("cpu").value == "cpu"
    for name in ("toaster", "meta", "hpu"):
        with pytest.raises(ConfigError, match="There is no device"):
            devices.choose_device(name)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="cuda"):
            devices.choose_device("cuda")


@pytest.mark.parametrize(("ratio", "chosen"), [(3.1, "bf16"), (1.1, "fp32"), (0.03, "fp32")])
def test_precision_on_a_cpu_follows_the_timing(monkeypatch, ratio: float, chosen: str) -> None:
    monkeypatch.setattr(devices, "bf16_speed_ratio", lambda: ratio)
    choice = devices.choose_precision("auto", "cpu")
    assert choice.value == chosen and "timed" in choice.reason
    assert devices.choose_precision("bf16", "cpu").value == "bf16"
    weights = devices.choose_precision("auto-weights", "cpu").value
    assert weights == ("bf16-weights" if chosen == "bf16" else "fp32")


def test_precision_on_a_gpu_follows_its_capability_without_emulation(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: asked.append(including_emulation))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    assert devices.choose_precision("auto", "cuda").value == "fp32" and asked == [False]


def test_a_busy_machine_gets_fewer_threads(monkeypatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(devices, "available_cores", lambda: 2)
    assert devices.choose_threads("auto", busy_cores=0.05).value == 2
    assert devices.choose_threads("auto", busy_cores=0.9).value == 1
    assert devices.choose_threads(3).value == 3


@pytest.mark.parametrize(
    "values",
    [
        *({"num_labels": 10**9}, {"num_hidden_layers": 10**9}, {"n_routed_experts": 10**9}, {"num_labels": 1e999}),
        *({"model_type": "gpt2", "n_inner": 10**9}, {"intermediate_size": 10**9}),
        *({"text_config": {"num_labels": 10**9}}, {"vision_config": {"depth": 10**9}}),
    ],
)
def test_no_list_is_made_as_long_as_a_config_says(folder: Path, values: dict[str, object]) -> None:
    """transformers makes one of an entry per label, layer or expert while it reads the config."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | values), "utf-8")
    for opening in (
        (load_model,) if values.keys() & {"n_inner", "intermediate_size"} else (read_model_config, load_model)
    ):
        with pytest.raises(ModelError, match=r"describes no model|doesn't fit"):
            opening(str(folder))


@pytest.mark.parametrize(
    "changes",
    [{"attention_dropout": 5.0}, {"resid_pdrop": float("nan")}, {"embd_dropout": -1}, {"output_attentions": True}],
)
def test_settings_with_which_no_training_ends_are_told(changes: dict[str, object]) -> None:
    check_trains({"attention_dropout": 0.1, "output_attentions": False}, "base", "")
    with pytest.raises(ModelError, match=r"config\.json in base"):
        check_trains(changes, "base", "")


def test_a_model_that_computes_no_numbers_is_told(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**settings, "rms_norm_eps": float("nan")}), encoding="utf-8")
    with pytest.raises(ModelError, match="aren't numbers"):
        check_causal(load_model(folder), "base")
