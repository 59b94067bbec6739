"""How fast is scoring, and is it exact? `python benchmarks/evaluate.py MODEL_FOLDER TEXT_FILE [BYTES]`"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from pathlib import Path

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config, EvaluateConfig
from pretrain_cli.evaluation.run import evaluate

CONTEXT, STRIDE = 1024, 512


def main(folder: str, file: str, n_bytes: int = 20_000) -> None:
    text = Path(file).read_bytes()[:n_bytes].decode("utf-8", "ignore")
    print(f"{'way':<18}{'seconds':>9}{'bits per byte':>15}")
    with tempfile.TemporaryDirectory() as spare:
        piece = Path(spare) / "text.txt"
        piece.write_text(text, "utf-8")
        settings = EvaluateConfig(on=(f"text={piece}",), context=CONTEXT, stride=STRIDE)
        started = time.perf_counter()
        result = evaluate(Config(evaluate=settings), Artifacts(Path(spare)), models=[folder])
        print(f"{'ptk':<18}{time.perf_counter() - started:>9.1f}{result.models[0].texts[0].bits_per_byte:>15.5f}")
    started = time.perf_counter()
    print(f"{'strided loop':<18}", end="")
    bits = strided_loop(folder, text)
    print(f"{time.perf_counter() - started:>9.1f}{bits / len(text.encode('utf-8')):>15.5f}")


def strided_loop(folder: str, text: str) -> float:
    """Bits of the text by the recipe of the transformers perplexity guide, with a BOS before it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
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
    return nats / math.log(2)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:4]))
