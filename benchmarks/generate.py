"""How fast is greedy text, and are its ids those of transformers? `python benchmarks/generate.py MODEL_FOLDER`"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config, GenerateConfig
from pretrain_cli.generation.run import generate

PROMPT = "The whale is"
TOKENS = 128


def main(folder: str) -> None:
    config = Config(generate=GenerateConfig(greedy=True, max_tokens=TOKENS))
    own = generate(config, Artifacts(Path("artifacts")), prompts=[PROMPT], model=folder).samples[0]
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(folder)(PROMPT, return_tensors="pt").input_ids
    model.generate(ids, do_sample=False, max_new_tokens=2)
    started = time.perf_counter()
    theirs = model.generate(ids, do_sample=False, max_new_tokens=TOKENS)[0, ids.shape[1] :].tolist()
    speed = len(theirs) / (time.perf_counter() - started)
    print(f"{'engine':<14}{'tokens/s':>10}{'first token s':>15}")
    print(f"{'ptk':<14}{own.tokens_per_second:>10.1f}{own.seconds_to_first_token:>15.2f}")
    print(f"{'transformers':<14}{speed:>10.1f}{'':>15}")
    print(f"same ids: {own.ids == theirs}")


if __name__ == "__main__":
    main(sys.argv[1])
