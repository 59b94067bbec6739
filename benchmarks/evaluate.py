"""Measures how fast scoring is, and that it is exact.

`python benchmarks/evaluate.py MODEL_FOLDER TEXT_FILE [BYTES] [WAY,...]`, ways: recipe, ptk-fp32, ptk-bf16.
Each way is a process of its own, and what is timed is the scoring without opening the model.

`python benchmarks/evaluate.py memory MODEL_FOLDER TEXT_FILE BYTES...`: the peak of memory for texts of these sizes,
each one document, with the model's tokenizer and a body of one small layer, so that it takes minutes.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONTEXT, STRIDE = 1024, 512
WAYS = ("recipe", "ptk-fp32", "ptk-bf16")


def main(folder: str, file: str, n_bytes: int = 20_000, ways: str = ",".join(WAYS)) -> None:
    """Print each way's seconds and bits per byte."""
    print(f"{'way':<12}{'seconds':>9}{'bits per byte':>15}{'times as fast':>15}", flush=True)
    first = 0.0
    for way in ways.split(","):
        command = [sys.executable, __file__, "one", way, folder, file, str(n_bytes)]
        seconds, bits = map(float, subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.split()[-2:])
        first = first or seconds
        print(f"{way:<12}{seconds:>9.1f}{bits:>15.5f}{first / seconds:>15.2f}", flush=True)


def memory(folder: str, file: str, *sizes: int) -> None:
    """Print the peak of memory of a process that scores the first bytes of a text, one line a size."""
    print(f"{'bytes':>12}{'peak MB':>10}{'tokens':>12}{'seconds':>9}", flush=True)
    for size in sizes:
        command = [sys.executable, __file__, "memory-one", folder, file, str(size)]
        print(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout, end="", flush=True)


def memory_one(folder: str, file: str, n_bytes: int) -> None:
    """Score a text in this process with a body of one small layer, and print what it took."""
    import shutil

    from transformers import AutoConfig, AutoModelForCausalLM

    from pretrain_cli.artifacts import Artifacts
    from pretrain_cli.config.model import Config, EvaluateConfig
    from pretrain_cli.evaluation.run import evaluate
    from pretrain_cli.memory import peak_resident_bytes

    with tempfile.TemporaryDirectory() as spare:
        small, text = Path(spare) / "small", Path(spare) / "text.txt"
        shutil.copytree(folder, small, ignore=shutil.ignore_patterns("*.safetensors*"))
        config = AutoConfig.from_pretrained(folder)
        for name in ("hidden_size", "intermediate_size", "head_dim"):
            setattr(config, name, 16)
        config.num_hidden_layers = config.num_attention_heads = config.num_key_value_heads = 1
        AutoModelForCausalLM.from_config(config).save_pretrained(small)
        text.write_bytes(Path(file).read_bytes()[:n_bytes].decode("utf-8", "ignore").encode())
        settings = EvaluateConfig(on=(str(text),), stride=CONTEXT - 1, context=CONTEXT, samples=0)
        result = evaluate(Config(evaluate=settings), Artifacts(Path(spare) / "artifacts"), models=[str(small)])
    score = result.models[0].texts[0]
    print(f"{score.bytes:>12}{peak_resident_bytes() / 1e6:>10.0f}{score.tokens:>12}{result.seconds:>9.1f}")


def one(way: str, folder: str, file: str, n_bytes: int) -> tuple[float, float]:
    """Seconds and bits per byte of one way."""
    text = Path(file).read_bytes()[:n_bytes].decode("utf-8", "ignore")
    if way == "recipe":
        return strided_recipe(folder, text)
    return ours(folder, text, way.removeprefix("ptk-"))


def ours(folder: str, text: str, precision: str) -> tuple[float, float]:
    """What `ptk evaluate` does between opening the model and the report."""
    import torch

    from pretrain_cli.artifacts import Artifacts
    from pretrain_cli.evaluation.metrics import bits_per_byte
    from pretrain_cli.evaluation.models import open_model
    from pretrain_cli.evaluation.scoring import score_text
    from pretrain_cli.evaluation.text_documents import Text, TextDocument
    from pretrain_cli.model.names import find_model

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    with tempfile.TemporaryDirectory() as spare:
        artifacts = Artifacts(Path(spare))
        model = open_model(find_model(folder, artifacts), artifacts, "cpu", dtype, CONTEXT)
    whole = Text("text", lambda: iter([TextDocument.whole("text", text)]), len(text.encode("utf-8")), 1)
    started = time.perf_counter()
    sums = score_text(model, whole, stride=STRIDE, batch_tokens=CONTEXT)
    return time.perf_counter() - started, float(bits_per_byte(sums.blocks().sum(axis=0)))


def strided_recipe(folder: str, text: str) -> tuple[float, float]:
    """The recipe of the transformers perplexity guide, with a BOS before the text."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    started = time.perf_counter()
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = [first, *tokenizer(text, add_special_tokens=False).input_ids]
    nats, scored_to = 0.0, 1
    for begin in range(0, len(ids), STRIDE):
        end = min(begin + CONTEXT, len(ids))
        window = torch.tensor([ids[begin:end]])
        labels = window.clone()
        labels[:, : scored_to - begin] = -100
        with torch.inference_mode():
            nats += float(model(window, labels=labels, use_cache=False).loss) * (end - scored_to)
        scored_to = end
        if end == len(ids):
            break
    return time.perf_counter() - started, nats / math.log(2) / len(text.encode("utf-8"))


if __name__ == "__main__":
    if sys.argv[1:] in ([], ["--help"]):
        sys.exit(__doc__)
    if sys.argv[1] == "memory":
        memory(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
    elif sys.argv[1] == "memory-one":
        memory_one(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    elif sys.argv[1] == "one":
        print(*one(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])))
    else:
        main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:4]), *sys.argv[4:5])
