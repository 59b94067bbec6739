"""A file that somebody else made is refused in two lines by the command that is given it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pretrain_cli.config.encodings import check_encoding
from pretrain_cli.errors import ModelError, UsageError
from pretrain_cli.exporting.check import open_with_transformers
from pretrain_cli.model.config_checks import check_config_fits
from pretrain_cli.progress import SILENT
from pretrain_cli.storage import read_bounded
from tests.support.tiny import make_model

SPLIT = {"type": "Split", "pattern": {"Regex": "((a|a)+)+b"}, "behavior": "Isolated", "invert": False}


def changed_json(file: Path, **values: Any) -> Path:
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **values}), encoding="utf-8")
    return file


def test_a_tokenizer_whose_pattern_takes_too_long_is_two_lines(ptk, empty: Path) -> None:
    model = make_model(empty / "model")
    changed_json(model / "tokenizer.json", pre_tokenizer=SPLIT)
    outcome = ptk("generate", "a" * 40, "--model", str(model))
    assert outcome.code == 3 and "can't work on this text" in outcome.err and "Traceback" not in outcome.err


def test_a_panic_anywhere_in_a_command_is_two_lines(ptk, empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenizers import Tokenizer

    model = make_model(empty / "model")
    broken = Tokenizer.from_file(str(changed_json(model / "tokenizer.json", pre_tokenizer=SPLIT)))
    monkeypatch.setattr("pretrain_cli.model.names.find_model", lambda *_: broken.encode("a" * 40))
    outcome = ptk("generate", "Once", "--model", str(model))
    assert outcome.code == 3 and "can't work on this text" in outcome.err


DEVICE = pytest.mark.skipif(not Path("/dev/zero").exists(), reason="the system has no /dev/zero")


@DEVICE
@pytest.mark.parametrize("option", ["--config", "--prompts-file"])
def test_a_file_without_end_is_refused_at_once(ptk, empty: Path, option: str) -> None:
    begun = time.monotonic()
    outcome = ptk("generate", "Once", option, "/dev/zero")
    assert outcome.code == 2 and "/dev/zero is a device" in outcome.err and len(outcome.error_lines) == 2
    (empty / "link").symlink_to("/dev/zero")
    assert "is a device" in ptk("generate", "Once", option, str(empty / "link")).err
    with (empty / "large").open("wb") as file:
        file.truncate(10**12)
    outcome = ptk("generate", "Once", option, str(empty / "large"))
    assert outcome.code == 2 and "larger than" in outcome.err and len(outcome.error_lines) == 2
    assert time.monotonic() - begun < 60


@DEVICE
def test_a_models_settings_without_end_are_refused_at_once(ptk, empty: Path) -> None:
    model = make_model(empty / "model")
    (model / "config.json").unlink()
    (model / "config.json").symlink_to("/dev/zero")
    outcome = ptk("generate", "Once", "--model", str(model))
    assert outcome.code == 4 and len(outcome.error_lines) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_prompts_and_configs_come_through_a_pipe(empty: Path) -> None:
    pipe = empty / "pipe"
    os.mkfifo(pipe)
    text = "Schöne\n" * 200_000

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), pipe.open("wb") as file:
            time.sleep(0.2)
            for start in range(0, len(text), 500_000):
                file.write(text[start : start + 500_000].encode())
                file.flush()
                time.sleep(0.05)

    writer = threading.Thread(target=write)
    writer.start()
    assert read_bounded(pipe, 10_000_000) == text
    writer.join()
    writer = threading.Thread(target=write)
    writer.start()
    with pytest.raises(UsageError, match="larger than"):
        read_bounded(pipe, 100_000)
    writer.join()


@pytest.mark.parametrize("name", ["rot13", "base64", "zlib", "idna", "undefined", "utf-9", "a\\u0000b", "x" * 1000])
def test_an_encoding_that_no_text_has_is_refused_before_anything_is_read(ptk, name: str) -> None:
    outcome = ptk("prepare", "nowhere.txt", "--set", f'data.encoding="{name}"')
    assert outcome.code == 2 and "isn't a text encoding" in outcome.err and len(outcome.error_lines) == 2


@pytest.mark.parametrize("name", ["auto", "utf-8", "UTF-16", "utf-32", "latin-1", "cp1252", "gb18030", "shift_jis"])
def test_text_encodings_are_taken(name: str) -> None:
    assert check_encoding(name) == name


WRONG_SIZES = [
    {"hidden_size": "abc"}, {"hidden_size": 10**9}, {"hidden_size": -1}, {"hidden_size": 64}, {"hidden_size": None},
    {"vocab_size": 10**9}, {"vocab_size": [1]}, {"vocab_size": 300}, {"intermediate_size": "abc"},
    {"intermediate_size": 10**9}, {"num_hidden_layers": 10**9}, {"num_hidden_layers": 1.5}, {"head_dim": 10**9},
    {"num_attention_heads": 10**9}, {"num_key_value_heads": 10**9},
]  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "gemma"])
def test_a_config_of_other_sizes_than_the_weights_is_refused_alike_by_all_commands(empty: Path, family: str) -> None:
    from pretrain_cli.generation.engines.torch_engine import _open_engine
    from pretrain_cli.model.load import load_model

    model = make_model(empty / "model", family)
    whole = (model / "config.json").read_text(encoding="utf-8")
    begun = time.monotonic()
    for values in WRONG_SIZES if family == "llama" else WRONG_SIZES[:3]:
        (model / "config.json").write_text(json.dumps({**json.loads(whole), **values}), encoding="utf-8")
        told = []
        for opened in (lambda: _open_engine(str(model), "cpu", "fp32", SILENT.note), lambda: load_model(model)):
            with pytest.raises(ModelError) as caught:
                opened()
            told.append(caught.value.message)
        assert told[0] == told[1] and "config.json" in told[0], values
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(
    ("values", "told"),
    [({}, "are rounded, but they are whole"), ({"vocab_size": 10**9, "quant_method": "gptq"}, "vocab_size is 1,0")],
)
def test_a_config_that_calls_whole_weights_rounded_is_checked_too(empty: Path, values: dict, told: str) -> None:
    shapes = {"model.embed_tokens.weight": (387, 32), "model.layers.0.self_attn.q_proj.weight": (32, 32)}
    settings = {"quant_method": values.pop("quant_method", "bitsandbytes"), "load_in_4bit": True}
    config = {"model_type": "llama", "vocab_size": 387, "quantization_config": settings, **values}
    with pytest.raises(ModelError, match=told):
        check_config_fits(config, shapes, "model", "")
    rounded = {**shapes, "model.layers.0.self_attn.q_proj.weight": (512, 1), "q_proj.weight.absmax": (16,)}
    check_config_fits({**config, "vocab_size": 387}, rounded, "model", "")


def test_a_config_of_other_sizes_is_two_lines(ptk, empty: Path) -> None:
    model = make_model(empty / "model")
    changed_json(model / "config.json", hidden_size=10**9)
    for line in (("generate", "Once", "--model"), ("evaluate",)):
        outcome = ptk(*line, str(model))
        assert outcome.code == 4 and "doesn't fit the weights" in outcome.err and len(outcome.error_lines) == 2


@pytest.mark.parametrize("dtype", ["evil", "load"])
def test_a_type_that_torch_doesnt_have_is_no_bug_in_ptk(empty: Path, dtype: str) -> None:
    model = make_model(empty / "model")
    changed_json(model / "config.json", dtype=dtype)
    with pytest.raises(ModelError, match="doesn't open"):
        open_with_transformers(model)


@pytest.mark.parametrize(
    "values",
    [
        {"attn_implementation": "kernels-community/flash-attn"},
        {"_attn_implementation": {"": "me/evil@main"}},
        {"text_config": {"experts_implementation": "me/evil"}},
    ],
    ids=str,
)
def test_a_config_that_names_a_kernel_of_the_hub_is_refused(empty: Path, values: dict) -> None:
    from pretrain_cli.model.load import load_model, read_model_config

    model = make_model(empty / "model")
    changed_json(model / "config.json", **values)
    for opened in (load_model, lambda folder: read_model_config(str(folder))):
        with pytest.raises(ModelError, match="asks for code from the Hub"):
            opened(model)


def test_a_config_of_far_more_weights_than_its_files_hold_is_two_lines(ptk, empty: Path) -> None:
    """transformers makes the missing ones: of these, 59 GB."""
    model = make_model(empty / "model")
    own = {"num_experts": 100_000, "moe_intermediate_size": 768}
    changed_json(model / "config.json", model_type="qwen3_moe", architectures=["Qwen3MoeForCausalLM"], **own)
    outcome = ptk("generate", "a", "--model", str(model))
    assert outcome.code == 4 and "describes a model of 14,752,031,104 parameters" in outcome.err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("kind", ["pipe", "holes"])
def test_typed_lines_are_not_recalled_from_a_pipe_or_a_huge_file(empty: Path, kind: str) -> None:
    pytest.importorskip("readline")
    history = empty / ".generate_history"
    if kind == "pipe":
        os.mkfifo(history)
    else:
        history.touch()
        os.truncate(history, 10**12)
    code = (
        "import sys, pathlib; from pretrain_cli.cli.interactive import _edit_lines as e; e(pathlib.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", f"{code}; import os; os._exit(0)", str(history)]
    assert subprocess.run(command, timeout=30).returncode == 0


def test_a_model_of_absurdly_many_layers_is_refused_at_once(ptk, empty: Path) -> None:
    (empty / "a.txt").write_text("Some words of a text. " * 500, encoding="utf-8")
    outcome = ptk("plan", "a.txt", "--set", "model.layers=99999")
    assert outcome.code == 2 and "1000" in outcome.err.replace(",", "") and len(outcome.error_lines) == 2
    model = make_model(empty / "model")
    (model / "model.safetensors").unlink()
    changed_json(model / "config.json", num_hidden_layers=9_999)
    outcome = ptk("plan", "a.txt", "--base", str(model), "--set", "model.init=random")
    assert outcome.code == 4 and "num_hidden_layers is 9,999" in outcome.err and len(outcome.error_lines) == 2


@pytest.mark.skipif(not os.access("/proc/kmsg", os.R_OK), reason="only root may read it")
@pytest.mark.parametrize("option", ["--config", "--tokenizer"])
def test_a_file_of_the_system_that_waits_for_ever_is_refused_at_once(empty: Path, option: str) -> None:
    (empty / "a.txt").write_text("Some words of a text. " * 500, encoding="utf-8")
    command = [sys.executable, "-m", "pretrain_cli", "prepare", "a.txt", option, "/proc/kmsg"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=empty)
    assert done.returncode in (2, 3) and "/proc/kmsg" in done.stderr and "bug" not in done.stderr
