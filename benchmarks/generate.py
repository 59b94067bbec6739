"""Measures greedy text, and that its ids are those of transformers: `python benchmarks/generate.py --base smollm2`

Every figure is of a whole process, from its start to the arrival of the text: ptk's as the command is typed. The
engines take turns, `--repeats` times; the table shows medians. `--base FOLDER` takes a model folder. `--products`: how
fast each product of one row streams the weights. `--weights`: the speed with weights of fewer bits, and how often they
choose the token that fp32 chooses after the same text.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from pretrain_cli.artifacts import Artifacts

PROMPT = "The whale is"
TOKENS = 128
PROMPTS = (PROMPT, "The President of the United States", "In the beginning of the second chapter", "To install it, run")
BATCHED, BATCH_TOKENS, COMPARED = 16, 48, 4


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--base", default="smollm2")
    arguments.add_argument("--artifacts", default="artifacts")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--products", action="store_true")
    arguments.add_argument("--weights", action="store_true")
    arguments.add_argument("--child", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child:
        CHILDREN[given.child](given.base)
        return
    from pretrain_cli.model.names import find_model, open_folders

    artifacts = Artifacts(Path(given.artifacts))
    folder = open_folders(find_model(given.base, artifacts), artifacts)[0]
    if given.products:
        _products(Path(folder))
        return
    if given.weights:
        _weights(Path(folder))
        return
    file = _gguf(folder, artifacts)
    command = [sys.executable, "-m", "pretrain_cli", "generate", PROMPT, "--artifacts", given.artifacts, "--plain"]
    command += ["--model", folder, "--greedy", "--max-tokens", str(TOKENS)]
    ways = {
        "import torch, read weights": lambda: _child("bare", folder),
        "transformers": lambda: _child("transformers", folder),
        "ptk": lambda: _command(command),
        "llama.cpp": lambda: _child("llama", str(file)),
        "ptk --engine llama.cpp": lambda: _command([*command, "--engine", "llama.cpp"]),
    }
    runs: dict[str, list[tuple[float, float, str]]] = {name: [] for name in ways}
    for _ in range(given.repeats):
        for name, way in ways.items():
            runs[name].append(way())
    print(f"{'':<28}{'first token s':>14}{'tokens/s':>10}")
    for name, found in runs.items():
        first, speed = (median(run[place] for run in found) for place in (0, 1))
        print(f"{name:<28}{first:>14.2f}" + (f"{speed:>10.1f}" if speed else ""))
    middle = {name: [median(run[place] for run in found) for place in (0, 1)] for name, found in runs.items()}
    print(f"ptk writes {middle['ptk'][1] / middle['transformers'][1]:.2f} times as fast as transformers,")
    print(
        f"its first token takes {middle['ptk'][0] / middle['import torch, read weights'][0]:.2f} times the bare start;"
    )
    share = middle["ptk --engine llama.cpp"][1] / middle["llama.cpp"][1]
    print(f"its llama.cpp has {share:.1%} of llama.cpp's own speed.")
    print(f"same ids as transformers: {_child_json('ids', folder)['ids'] == json.loads(runs['transformers'][0][2])}")
    print(f"same text as llama.cpp: {runs['ptk --engine llama.cpp'][0][2].strip() == runs['llama.cpp'][0][2].strip()}")
    batch = _child_json("batch", folder)
    print(f"{BATCHED} prompts of {batch['lengths']} tokens together: {batch['speed']:.1f} tokens/s;")
    print(f"texts drawn with the same seed alone are the same: {batch['same']} of {batch['compared']}")


def _weights(folder: Path) -> None:
    """Let each kind of weights follow the text that fp32 writes, step by step in turns; print a table."""
    import torch
    from tokenizers import Tokenizer

    from pretrain_cli.generation.engines.llama_shape import llama_shape
    from pretrain_cli.generation.engines.llama_shaped_engine import LlamaShapedEngine
    from pretrain_cli.generation.engines.torch_engine import ROUNDED
    from pretrain_cli.model.files import read_model_json, read_weights, weight_files

    shape = llama_shape(read_model_json(folder / "config.json"))
    assert shape is not None, "another architecture"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    kinds = {"fp32": None, **ROUNDED}
    engines = {
        name: LlamaShapedEngine(read_weights(weight_files(folder)), shape, "cpu", torch.float32, kind)
        for name, kind in kinds.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    alike = dict.fromkeys(kinds, 0)
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt, add_special_tokens=False).ids
        chosen = {name: int(engine.start([ids], BATCH_TOKENS)[0].argmax()) for name, engine in engines.items()}
        for _ in range(BATCH_TOKENS - 1):
            token = chosen["fp32"]
            for name, engine in engines.items():
                start = time.perf_counter()
                chosen[name] = int(engine.step([0], [token])[0].argmax())
                seconds[name].append(time.perf_counter() - start)
                alike[name] += chosen[name] == chosen["fp32"]
    print(f"{'':<16}{'tokens/s':>10}{'against fp32':>14}{'same token':>12}")
    for name, times in seconds.items():
        speed, share = 1 / median(times), alike[name] / len(times)
        print(f"{name:<16}{speed:>10.1f}{median(seconds['fp32']) * speed:>14.2f}{share:>12.1%}")


def _products(folder: Path) -> None:
    """Each product of one row over all of a model's matrices; medians of 9 passes."""
    import torch

    from pretrain_cli.generation.engines import row_products as products
    from pretrain_cli.generation.engines.llama_shape import llama_shape
    from pretrain_cli.generation.engines.llama_shaped_engine import LlamaShapedEngine
    from pretrain_cli.heap import take_huge_pages
    from pretrain_cli.model.files import read_model_json, read_weights, weight_files

    take_huge_pages()
    shape = llama_shape(read_model_json(folder / "config.json"))
    assert shape is not None
    model = LlamaShapedEngine(read_weights(weight_files(folder)), shape, "cpu", torch.float32)
    each = [part for layer in model.layers for part in (layer.qkv, layer.out, layer.gate_up, layer.down)]
    each.append(model.head)
    rows = [torch.ones(1, part.weights[0].shape[1]) for part in each]
    n_bytes = sum(part.n_bytes for part in each)
    print(f"{n_bytes / 1e9:.2f} GB, {torch.get_num_threads()} threads")
    print(f"{'product':<12}{'to lay out, s':>14}{'a pass, ms':>12}{'GB/s':>8}")
    for name, way in {"torch": products.LINEAR, "summed": products.SUMMED, "in blocks": products.IN_BLOCKS}.items():
        times = []
        for _ in range(10):
            started = time.perf_counter()
            for part in each:
                part.lay_out(way, torch.get_num_threads())  # once
            laid_out = time.perf_counter()
            for part, row in zip(each, rows, strict=True):
                part.of_row(row)
            times.append((laid_out - started, time.perf_counter() - laid_out))
        pass_s = median(seconds for _, seconds in times[1:])
        print(f"{name:<12}{times[0][0]:>14.2f}{1000 * pass_s:>12.1f}{n_bytes / pass_s / 1e9:>8.1f}")


def _gguf(folder: str, artifacts: Artifacts) -> Path:
    """The f16 file that `--engine llama.cpp` makes of ``folder``."""
    from pretrain_cli.generation.engines.llama_cpp_engine import open_llama_cpp
    from pretrain_cli.model.names import find_model

    return open_llama_cpp(find_model(folder, artifacts), artifacts).file


def _command(command: list[str]) -> tuple[float, float, str]:
    """Seconds to the first written text, tokens/s from there on, and the text, of a command in a pipe."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        shown, first, last = b"", 0.0, 0.0
        while piece := os.read(process.stdout.fileno(), 65536):
            shown += piece
            if len(shown.strip()) > len(PROMPT):
                last = time.perf_counter() if piece.strip() else last
                first = first or last
    return first - started, (TOKENS - 1) / (last - first), shown.decode()[len(PROMPT) :]


def _child(kind: str, model: str) -> tuple[float, float, str]:
    started = time.time()
    found = _child_json(kind, model)
    return found["first"] - started, found.get("speed", 0.0), found.get("text", "")


def _child_json(kind: str, model: str) -> dict:
    line = [sys.executable, __file__, "--child", kind, "--base", model]
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def _bare(folder: str) -> None:
    import torch
    from safetensors.torch import load_file

    with torch.inference_mode():
        weights = {name: tensor.clone() for name, tensor in load_file(f"{folder}/model.safetensors").items()}
    print(json.dumps({"first": time.time(), "tensors": len(weights)}))


def _transformers(folder: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.generation.streamers import BaseStreamer

    class Clock(BaseStreamer):
        """Notes when each token comes; the first call brings the prompt."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, value: object) -> None:
            self.times.append(time.time())

        def end(self) -> None:
            pass

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(folder)(PROMPT, return_tensors="pt").input_ids
    clock = Clock()
    found = model.generate(ids, do_sample=False, max_new_tokens=TOKENS, streamer=clock)[0, ids.shape[1] :].tolist()
    times = clock.times[1:]
    speed = (len(found) - 1) / (times[-1] - times[0])
    print(json.dumps({"first": times[0], "speed": speed, "text": json.dumps(found)}))


def _ids(folder: str) -> None:
    from pretrain_cli.config.model import Config, GenerateConfig
    from pretrain_cli.generation.run import generate

    config = Config(generate=GenerateConfig(greedy=True, max_tokens=TOKENS))
    print(
        json.dumps(
            {"ids": generate(config, Artifacts(Path("artifacts")), prompts=[PROMPT], model=folder).samples[0].ids}
        )
    )


def _batch(folder: str) -> None:
    from pretrain_cli.config.model import GenerateConfig
    from pretrain_cli.generation.opening import open_model
    from pretrain_cli.model.names import find_model

    config, artifacts = GenerateConfig(max_tokens=BATCH_TOKENS, seed=1), Artifacts(Path("artifacts"))
    voice = open_model(find_model(folder, artifacts), config, artifacts)
    prompts = [PROMPT + " white and" * number for number in range(BATCHED)]
    started = time.perf_counter()
    together = voice.write(prompts, config, print, None, started)
    speed = sum(sample.tokens for sample in together) / (time.perf_counter() - started)
    alone = [voice.write([prompt], config, print, None, started)[0] for prompt in prompts[:COMPARED]]
    same = sum(one.ids == other.ids for one, other in zip(alone, together, strict=False))
    lengths = f"3 to {3 + 2 * (BATCHED - 1)}"
    print(json.dumps({"speed": speed, "same": same, "compared": COMPARED, "lengths": lengths}))


def _llama(file: str) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = file
    params.n_parallel, params.n_ctx, params.warmup, params.verbosity = 1, 512, False, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = len(os.sched_getaffinity(0))
    server = xllamacpp.Server(params)
    parts: list[tuple[float, dict]] = []

    def receive(part: dict) -> bool:
        parts.append((time.time(), part))
        return False

    server.handle_completions({"prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "stream": True}, receive)
    text = "".join(part["choices"][0]["text"] for _, part in parts)
    speed = parts[-1][1]["timings"]["predicted_per_second"]
    print(json.dumps({"first": parts[0][0], "speed": speed, "text": text}))


CHILDREN = {"bare": _bare, "transformers": _transformers, "ids": _ids, "llama": _llama, "batch": _batch}

if __name__ == "__main__":
    main()
