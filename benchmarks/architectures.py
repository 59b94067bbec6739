"""What ptk says of every architecture that transformers builds for text, and whether its road can be walked.

    python benchmarks/architectures.py [NAME ...]

Each model type of `AutoModelForCausalLM` gets a config of two layers or so, made without a list of models: sizes in it
are recognized by their names. Then ptk's probes say what is true of the model, each answer is checked in another way,
and the road is walked: prepare on it as a base, train two steps, write a sample, evaluate, generate, export, open.
A model is walked, or refused by an error of ptk's own, which a command shows in two lines. Anything else is a bug: it
is named, and the exit status is 1. The table is in docs/concepts/architectures.md.
Takes about ten minutes on two cores; no network.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.data.prepare import prepare
from pretrain_cli.errors import PtkError
from pretrain_cli.evaluation.run import evaluate
from pretrain_cli.exporting.run import export
from pretrain_cli.generation.run import generate
from pretrain_cli.model import probes
from pretrain_cli.model.continuing import reader_of
from pretrain_cli.model.greedy import greedy_ids
from pretrain_cli.model.load import load_model
from pretrain_cli.quiet import quiet_libraries
from pretrain_cli.tokenizer.train import train_tokenizer
from pretrain_cli.training.run import train
from pretrain_cli.training.step.loss import attach_loss

POSITIONS, VOCABULARY, ROW, NEW_TOKENS = 64, 300, 32, 6
LAYERS = 2
TEXT = "Call me Ishmael. Some years ago, never mind how long precisely, I thought I would sail about a little.\n\n"
SIZES = {
    "hidden_size d_model n_embd dim hidden_dim emb_dim word_embed_proj_dim embedding_size": 32,
    "num_hidden_layers num_layers n_layers n_layer num_blocks encoder_layers decoder_layers num_encoder_layers": LAYERS,
    "num_decoder_layers num_experts_per_tok moe_top_k moe_k attn_layer_period expert_layer_period": LAYERS,
    "num_key_value_heads num_kv_heads linear_num_key_heads": 2,
    "attn_layer_offset expert_layer_offset n_group topk_group": 1,
    "num_attention_heads num_heads n_heads n_head encoder_attention_heads decoder_attention_heads": 4,
    "num_encoder_attention_heads num_decoder_attention_heads linear_num_value_heads index_n_heads": 4,
    "num_experts num_local_experts n_routed_experts moe_num_experts rotary_dim mamba_n_heads": 4,
    "intermediate_size ffn_dim d_inner n_inner ffn_hidden_size dim_ff d_ff encoder_ffn_dim decoder_ffn_dim": 64,
    "moe_intermediate_size shared_expert_intermediate_size": 64,
    "n_positions max_seq_len max_position_embeddings": POSITIONS,
    "sliding_window q_lora_rank kv_lora_rank mamba_d_head linear_key_head_dim linear_value_head_dim": 16,
    "head_dim qk_nope_head_dim qk_rope_head_dim v_head_dim mamba_d_state state_size index_head_dim": 8,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "vocab_size": VOCABULARY,
}
"""Names of sizes in configs, and what they become."""
WAYS = {"layer_types", "layers_block_type"}
"""Names of lists that say what each layer is: one layer of each kind is built."""
OWN: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "dots1": {"num_key_value_heads": 4, "n_shared_experts": 1},
    "dots3_note_text": {"num_key_value_heads": 4},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {"head_dim": 8},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1},
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "xmod": {"is_decoder": True, "default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
}
"""What the configs of some need beside that."""


@dataclass(frozen=True)
class Claims:
    """What ptk says of a model; ``refused``: why it takes no further part."""

    apart: bool
    chunked: bool
    memory: str
    refused: str = ""


def names() -> list[str]:
    """Model types that `AutoModelForCausalLM` knows."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_model(name: str) -> PreTrainedModel:
    """A model of type ``name`` with random weights."""
    torch.manual_seed(0)
    kind = CONFIG_MAPPING[name]
    model: PreTrainedModel = AutoModelForCausalLM.from_config(kind(**{**_small(kind), **OWN.get(name, {})}))
    for parameter in model.parameters():  # some leave theirs as torch finds them in memory
        if not parameter.isfinite().all() or parameter.abs().max() > 1e3:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def _small(kind: Any) -> dict[str, Any]:
    """Arguments that make a config of ``kind`` small."""
    plain = kind()
    known = set(inspect.signature(kind.__init__).parameters) | set(getattr(kind, "__dataclass_fields__", {}))
    known -= set(getattr(kind, "attribute_map", {}))
    if "qk_rope_head_dim" in known:
        known.discard("head_dim")  # which follows from it
    sizes = {name: size for listed, size in SIZES.items() for name in listed.split() if name in known}
    if "kv_lora_rank" in known and "num_key_value_heads" in sizes:
        sizes["num_key_value_heads"] = 4  # such attention has no groups
    for name in WAYS & known:
        kinds = list(dict.fromkeys(getattr(plain, name, None) or ()))
        if kinds:
            sizes[name] = kinds if len(kinds) >= LAYERS else kinds * LAYERS
            sizes |= {key: len(sizes[name]) for key in ("num_hidden_layers",) if key in sizes}
    for name in getattr(kind, "sub_configs", None) or {}:
        part = getattr(plain, name, None)
        if part is not None:
            sizes[name] = type(part)(**_small(type(part))).to_dict()
    return sizes


def claims(model: PreTrainedModel, name: str) -> Claims:
    """ptk's own probes, each answer checked in another way.

    Raises:
        AssertionError: an answer isn't true.
    """
    try:
        probes.check_causal(model, name)
    except PtkError as error:
        return Claims(False, False, "", error.message)
    found = Claims(probes.keeps_documents_apart(model), probes.head_is_plain(model), probes.memory_of(model))
    model.eval()
    with torch.no_grad():
        _check_apart(model, found.apart)
        _check_chunked(model, found.chunked)
        _check_continuing(model)
    return found


def _ids(length: int, seed: int) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(seed))


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-3 * one.abs().max())


def _check_apart(model: PreTrainedModel, claimed: bool) -> None:
    """Three documents of other lengths than the probe's in one row: the last has to be as alone."""
    if not claimed:
        return
    lengths = (5, 9, 7)
    parts = [_ids(length, seed) for seed, length in enumerate(lengths)]
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    together = model(input_ids=torch.cat(parts, dim=1), position_ids=positions, use_cache=False).logits
    alone = model(input_ids=parts[-1], use_cache=False).logits
    assert _close(together[:, -lengths[-1] :], alone), "documents aren't kept apart"


def _check_chunked(model: PreTrainedModel, claimed: bool) -> None:
    """The loss in chunks is the model's own."""
    if not claimed:
        return
    ids = _ids(20, 3)
    own = model(input_ids=ids, labels=ids, use_cache=False).logits[0, :-1].float()
    expected = torch.nn.functional.cross_entropy(own, ids[0, 1:])
    detach = attach_loss(model, True, 0.0)
    try:
        assert _close(expected, model(input_ids=ids, labels=ids)["loss"]), "the loss in chunks is another"
    finally:
        detach()


def _check_continuing(model: PreTrainedModel) -> None:
    """Token by token the model writes what it would if it read everything again."""
    prompt = _ids(6, 4)[0].tolist()
    written = greedy_ids(reader_of(model), prompt, NEW_TOKENS, [], model.device)
    logits = model(input_ids=torch.tensor([[*prompt, *written]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    chosen = logits.gather(1, torch.tensor(written)[:, None])[:, 0]
    assert _close(logits.amax(-1), chosen), "it continues otherwise than it reads"


def walk(folder: Path, artifacts: Artifacts) -> None:
    """The road, on the model in ``folder``.

    Raises:
        PtkError: it is refused.
    """
    text = folder.parent / "text.txt"
    text.write_text(TEXT * 30, encoding="utf-8")
    common: dict[str, Any] = {
        "data__inputs": (str(text),), "data__sequence_length": ROW, "data__document_separator": "\n\n",
        "data__workers": 1, "data__packing": "best-fit", "model__base": str(folder), "tokenizer__engine": "tokenizers",
        "train__device": "cpu", "train__precision": "fp32", "train__threads": 1, "train__workers": 0,
        "train__micro_batch": 2, "train__gradient_accumulation": 1, "train__max_steps": 2,
        "train__sample_prompts": ("Call me",), "tracking__report_to": "none", "evaluate__on": ("validation",),
        "evaluate__against_base": False, "evaluate__samples": 1, "generate__max_tokens": NEW_TOKENS,
    }  # fmt: skip
    config = changed(Config(), **common)
    prepare(config, artifacts)
    run = artifacts.run(train(config, artifacts).run)
    assert '"step": 2' in run.samples.read_text(encoding="utf-8"), "no sample was written"
    scored = evaluate(config, artifacts).models[0].texts[0].bits_per_byte
    assert 0 < scored < 100, f"{scored} bits per byte"
    assert generate(config, artifacts, prompts=["Call me"]).samples[0].tokens, "nothing was written"
    exported = export(artifacts).path
    one, two = (load_model(place) for place in (run.model, exported))
    with torch.no_grad():
        first, second = (model(input_ids=_ids(8, 5), use_cache=False).logits for model in (one, two))
    assert torch.equal(first, second), "the export computes something else"


def look(name: str, folder: Path) -> tuple[list[str], bool]:
    """The row of model type ``name``, and whether it is as it should be."""
    try:
        model = tiny_model(name)
    except Exception as error:  # configs that need more than sizes
        return [name, "", "", "", "", f"not built: {_line(error)}"], True
    try:
        found = claims(model, name)
        folder.mkdir()
        train_tokenizer([TEXT] * 4, VOCABULARY, folder)
        model.save_pretrained(folder)
        cells = [name, "yes", *(_yes(value) for value in (found.apart, found.chunked)), found.memory or "reads again"]
        if found.refused:
            cells = [name, "" if "can't compute" in found.refused else "no", "", "", ""]
        walk(folder, Artifacts(folder / "artifacts"))
        return [*cells, "walked"], True
    except PtkError as error:
        return [*cells, f"refused: {error.message.replace(str(folder), name)}"], bool(error.hint)
    except Exception as error:  # what must not happen
        return [name, "", "", "", "", f"BUG: {_line(error)}"], False


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def main() -> int:
    """Print the table; 1 if something isn't as it should be."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    quiet_libraries()
    wanted = [word for word in sys.argv[1:] if not word.startswith("-")] or names()
    print("| architecture | causal | kept apart | chunked loss | continues from | road |\n" + "| --- " * 6 + "|")
    wrong = []
    for name in wanted:
        with tempfile.TemporaryDirectory() as place, contextlib.redirect_stderr(io.StringIO()):
            cells, right = look(name, Path(place) / "model")
        print("| " + " | ".join(cells) + " |", flush=True)
        if not right:
            wrong.append(name)
    print(f"\n{len(wanted)} architectures, {len(wrong)} not as they should be: {', '.join(wrong)}", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
