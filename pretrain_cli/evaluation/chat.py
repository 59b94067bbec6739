"""Measures what is left of a model that was tuned for chat: its own answers, and instructions that it follows."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import GenerationConfig, PreTrainedModel

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.evaluation.bootstrap import draws, middle
from pretrain_cli.evaluation.instructions import Instruction, read_instructions
from pretrain_cli.evaluation.results import ChatChange, ChatResult, ChatScores
from pretrain_cli.model.greedy import end_ids
from pretrain_cli.model.load import load_model
from pretrain_cli.model.names import NamedModel, open_folders
from pretrain_cli.progress import Progress
from pretrain_cli.tokenizer.chat import ChatTemplate, need_chat_template, read_chat_template
from pretrain_cli.tokenizer.load import open_tokenizer, read_tokenizer

ANSWER_TOKENS = 160
BATCH = 16
SHOWN = 3
"""Answers that the report quotes."""


def measure_chat(
    named: Sequence[NamedModel],
    artifacts: Artifacts,
    device: str,
    dtype: torch.dtype,
    seed: int,
    progress: Progress,
) -> ChatResult:
    """Score each model on the packaged instructions, through the template of the last one, the base.

    The base's own greedy answers are scored in bits per byte under each model: a base that chats finds its answers
    probable, and a run that forgot how doesn't. And each model's own greedy answers are checked by program.

    Raises:
        ModelError: the base has no chat template.
    """
    instructions = read_instructions()
    reference = named[-1]
    template = need_chat_template(open_folders(reference, artifacts)[1], reference.name)
    prompts = template.prompts([{"role": "user", "content": each.prompt}] for each in instructions)
    answers: list[str] = []
    scores: list[ChatScores] = []
    bits: list[NDArray[np.float64]] = []
    for entry in reversed(named):  # the base comes first: the others are asked about its answers
        chatting = _Chatting(entry, artifacts, device, dtype)
        own = chatting.answer(prompts, progress)
        answers = answers or own
        bits.append(chatting.bits(prompts, answers, progress))
        scores.append(_scores(entry.name, instructions, own, bits[-1], answers, seed))
        del chatting
        gc.collect()
    scores, bits = scores[::-1], bits[::-1]
    others = zip(scores[:-1], bits[:-1], strict=True)
    changes = [_change(one, scores[-1], own, bits[-1], answers, seed) for one, own in others]
    return ChatResult(reference.name, scores, changes)


def has_chat_template(named: NamedModel, artifacts: Artifacts) -> bool:
    """Whether the model was tuned for chat, as far as a template beside its tokenizer says so."""
    template: ChatTemplate | None = read_chat_template(Path(open_folders(named, artifacts)[1]))
    return template is not None


class _Chatting:
    """A model in memory that answers."""

    def __init__(self, named: NamedModel, artifacts: Artifacts, device: str, dtype: torch.dtype) -> None:
        location, folder = open_folders(named, artifacts)
        self.name = named.name
        self.model: PreTrainedModel = load_model(location, device=device, dtype=dtype)
        self.info = read_tokenizer(folder)
        self.tokenizer: Tokenizer = open_tokenizer(self.info.file)
        configs: list[Any] = [self.model.config, self.model.generation_config]
        self.ends = end_ids(self.info.eos_id, *(getattr(config, "eos_token_id", None) for config in configs))
        self.model.generation_config = GenerationConfig()  # the model's own may ask for beams without number

    def ids(self, prompt: str) -> list[int]:
        """Of a prompt that the template made, control tokens read as such; BOS where the tokenizer adds it."""
        front = [self.info.bos_id] if self.info.adds_bos and self.info.bos_id is not None else []
        return [*front, *self.tokenizer.encode(prompt, add_special_tokens=False).ids]

    @torch.inference_mode()
    def answer(self, prompts: Sequence[str], progress: Progress) -> list[str]:
        """The greedy answer to each prompt."""
        progress.stage(f"answering as {self.name}", len(prompts), "answers")
        found: list[str] = []
        pad = 0  # masked before the prompt, cut off after the answer
        for start in range(0, len(prompts), BATCH):
            rows = [self.ids(prompt) for prompt in prompts[start : start + BATCH]]
            width = max(map(len, rows))
            ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=self.model.device)
            seen = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=self.model.device)
            model: Any = self.model
            written = model.generate(
                input_ids=ids,
                attention_mask=seen,
                max_new_tokens=ANSWER_TOKENS,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                repetition_penalty=1.0,
                eos_token_id=sorted(self.ends) or None,
                pad_token_id=pad,
            )
            found += [self._text(row) for row in written[:, width:].tolist()]
            progress.advance(len(found))
        progress.end_stage()
        return found

    def _text(self, ids: list[int]) -> str:
        end = next((at for at, each in enumerate(ids) if each in self.ends), len(ids))
        text: str = self.tokenizer.decode(ids[:end])
        return text.strip()

    @torch.inference_mode()
    def bits(self, prompts: Sequence[str], answers: Sequence[str], progress: Progress) -> NDArray[np.float64]:
        """Bits that each answer takes after its prompt, float64[n]."""
        progress.stage(f"scoring answers with {self.name}", len(prompts), "answers")
        found = np.zeros(len(prompts))
        for at, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            front = self.ids(prompt)
            own = self.tokenizer.encode(answer, add_special_tokens=False).ids
            if own:
                ids = torch.tensor([[*front, *own]], device=self.model.device)
                logits = self.model(input_ids=ids, use_cache=False).logits[0, len(front) - 1 : -1].float()
                chosen = torch.log_softmax(logits, -1).gather(1, ids[0, len(front) :, None])
                found[at] = -float(chosen.sum()) / math.log(2)
            progress.advance(at + 1)
        progress.end_stage()
        return found


def _scores(
    name: str,
    instructions: Sequence[Instruction],
    own: Sequence[str],
    bits: NDArray[np.float64],
    answers: Sequence[str],
    seed: int,
) -> ChatScores:
    followed = np.asarray([each.followed(answer) for each, answer in zip(instructions, own, strict=True)], float)
    sizes = _bytes(answers)
    return ChatScores(
        name=name,
        instructions=len(instructions),
        followed=int(followed.sum()),
        share_interval=_interval(lambda drawn: drawn @ followed / len(followed), len(followed), seed),
        bits_per_byte=float(bits.sum() / max(1.0, sizes.sum())),
        bits_per_byte_interval=_interval(lambda drawn: (drawn @ bits) / (drawn @ sizes), len(bits), seed),
        kept=[bool(each) for each in followed],
        answers=[{"prompt": instructions[at].prompt, "answer": own[at]} for at in range(min(SHOWN, len(own)))],
    )


def _change(
    one: ChatScores,
    base: ChatScores,
    bits: NDArray[np.float64],
    base_bits: NDArray[np.float64],
    answers: Sequence[str],
    seed: int,
) -> ChatChange:
    """``one`` minus ``base``, over the same instructions and answers."""
    sizes = _bytes(answers)
    more = np.asarray(one.kept, float) - np.asarray(base.kept, float)
    excess = bits - base_bits
    return ChatChange(
        name=one.name,
        share=float(more.mean()),
        share_interval=_interval(lambda drawn: drawn @ more / len(more), len(more), seed),
        bits_per_byte=float(excess.sum() / max(1.0, sizes.sum())),
        bits_per_byte_interval=_interval(lambda drawn: (drawn @ excess) / (drawn @ sizes), len(bits), seed),
    )


def _bytes(answers: Sequence[str]) -> NDArray[np.float64]:
    return np.asarray([len(answer.encode()) for answer in answers], float)


def _interval(figure: Any, count: int, seed: int) -> tuple[float, float]:
    """95% percentile bootstrap over the instructions."""
    found = middle(figure(draws(count, seed)))
    return found.low, found.high
