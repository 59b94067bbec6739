"""Documents in a row never see each other, whichever kernel attends, and however many rows there are."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import transformers.masking_utils as masking
import transformers.modeling_flash_attention_utils as flash_utils
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.data.rows.batches import LENGTHS, PackedDataset, document_starts, rows_of
from pretrain_cli.errors import ConfigError
from pretrain_cli.model import varlen
from pretrain_cli.model.devices import Choice
from pretrain_cli.training import context as contexts
from pretrain_cli.training import planned_model
from pretrain_cli.training.choices.kernels import Attended, Hardware, Kernels, choose_kernels
from pretrain_cli.training.run import train
from pretrain_cli.training.step import loss as losses
from pretrain_cli.training.step.loss import attach_loss
from tests.support.families import SIZES
from tests.support.runs import Heard, course, small

LENGTH = 24
DOCUMENTS = ((5, 9, 10), (24,), (1, 22, 1))
OURS, FLASH = varlen.NAME, "flash_attention_2"


class Recorder:
    """A flash kernel on the CPU: it attends within what ``cu_seqlens`` say, and refuses what a GPU would take."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, starts: Tensor, ends: Tensor, longest: int) -> Tensor:
        assert q.ndim == k.ndim == v.ndim == 3 and q.dtype == k.dtype == v.dtype
        assert starts.dtype == torch.int32 and torch.equal(starts, ends)
        places = starts.tolist()
        assert places[0] == 0 and places[-1] == len(q) and places == sorted(places)
        assert longest >= max(b - a for a, b in itertools.pairwise(places))
        self.seen.append(places)
        parts = []
        for a, b in itertools.pairwise(places):
            if a < b:
                one = [x[a:b].transpose(0, 1)[None] for x in (q, k, v)]
                parts.append(F.scaled_dot_product_attention(*one, is_causal=True, enable_gqa=True)[0].transpose(0, 1))
        return torch.cat(parts)


@pytest.fixture
def kernel(monkeypatch) -> Recorder:
    """Stands for flash-attn and for torch's own kernel."""
    recorder = Recorder()

    def torchs(q, k, v, starts, ends, longest, longest_k, *, scale, window_size, enable_gqa):
        assert window_size == (-1, 0), "causal"
        return recorder(q, k, v, starts, ends, longest)

    def theirs(q, k, v, *, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal, **others):
        assert causal
        return recorder(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q)

    def dense(*words, **keywords):
        raise AssertionError("rows of several documents went through the kernel that takes a row for one")

    def kwargs(*, is_causal, max_seqlen_q=None, max_seqlen_k=None, **others):
        return {"causal": is_causal, "max_seqlen_q": max_seqlen_q, "max_seqlen_k": max_seqlen_k}

    found = ((dense, theirs, None, None, None), (kwargs, None))
    monkeypatch.setattr(flash_utils, "lazy_import_flash_attention", lambda implementation: found)
    monkeypatch.setattr(varlen, "varlen_attn", torchs)
    varlen.register()
    return recorder


def model_of(family: str, attention: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SIZES, head_dim=8)).eval()
    model.config._attn_implementation_internal = attention
    return model


def batch_of(rows: int, lengths: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 96, (rows, LENGTH), generator=generator)
    positions = torch.stack([torch.cat([torch.arange(n) for n in DOCUMENTS[row]]) for row in range(rows)])
    batch = {"input_ids": ids, "labels": ids.clone(), "position_ids": positions}
    return batch | ({LENGTHS: document_starts(positions)} if lengths else {})


def hidden_of(model: PreTrainedModel, batch: dict[str, Tensor], monkeypatch, body: Any = None) -> Tensor:
    """[B, L, H]: what the head reads, through the very forward that training runs."""
    seen: list[Tensor] = []
    plain = losses.chunked_cross_entropy

    def noted(hidden, *words):
        seen.append(hidden.detach().view(*batch["input_ids"].shape, -1))
        return plain(hidden, *words)

    monkeypatch.setattr(losses, "chunked_cross_entropy", noted)
    detach = attach_loss(model, True, 0.0, body)
    try:
        model(**batch)
    finally:
        detach()
        monkeypatch.setattr(losses, "chunked_cross_entropy", plain)
    return seen[0]


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("attention", ["eager", "sdpa", FLASH, OURS])
def test_changing_one_document_never_moves_another(kernel, monkeypatch, attention: str, rows: int, family: str) -> None:
    model, lengths = model_of(family, attention), attention in (FLASH, OURS)
    batch = batch_of(rows, lengths)
    before = hidden_of(model, batch, monkeypatch)
    assert bool(kernel.seen) == lengths
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][0, :5] = (other["input_ids"][0, :5] + 7) % 96
    after = hidden_of(model, other, monkeypatch)
    assert (before[0, :5] - after[0, :5]).abs().max() > 1e-3
    assert torch.equal(before[0, 5:], after[0, 5:]) and torch.equal(before[1:], after[1:])


@pytest.mark.parametrize("attention", ["eager", FLASH, OURS])
def test_every_kernel_gives_what_torchs_own_gives_with_a_mask(kernel, monkeypatch, attention: str) -> None:
    lengths = attention in (FLASH, OURS)
    found = hidden_of(model_of("qwen3", attention), batch_of(3, lengths), monkeypatch)
    wanted = hidden_of(model_of("qwen3", "sdpa"), batch_of(3, False), monkeypatch)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_without_lengths_transformers_takes_rows_for_whole_documents(kernel, monkeypatch) -> None:
    """Why the loader gives them: with more than one row, restarting positions alone aren't looked at."""
    with pytest.raises(AssertionError, match="takes a row for one"):
        hidden_of(model_of("qwen3", FLASH), batch_of(3, False), monkeypatch)


def test_our_attention_makes_no_mask(kernel, monkeypatch) -> None:
    masks: list[object] = []
    plain = varlen.attend

    def noted(module, query, key, value, attention_mask, *words, **keywords):
        masks.append(attention_mask)
        return plain(module, query, key, value, attention_mask, *words, **keywords)

    monkeypatch.setattr(varlen, "attend", noted)
    varlen.register()
    hidden_of(model_of("llama", OURS), batch_of(3, True), monkeypatch)
    assert masks == [None, None]


def test_starts_are_padded_to_few_shapes_and_follow_the_rows_of_a_piece() -> None:
    batch = batch_of(3, True)
    starts = batch[LENGTHS].tolist()
    assert starts[:8] == [0, 5, 14, 24, 48, 49, 71, 72] and len(starts) == 64 and set(starts[7:]) == {72}
    piece = rows_of(batch, 1, 2)
    assert piece[LENGTHS].tolist()[:5] == [0, 24, 25, 47, 48] and len(piece["input_ids"]) == 2


def test_the_loader_gives_where_documents_begin_without_a_look_at_the_gpu(rows) -> None:
    batch = PackedDataset(rows.train_rows, mask_documents=True, lengths=True).__getitems__([0, 1, 2])
    assert batch[LENGTHS].dtype == torch.int32 and batch[LENGTHS].device.type == "cpu"
    assert torch.equal(batch[LENGTHS], document_starts(batch["position_ids"]))
    assert LENGTHS not in PackedDataset(rows.train_rows, mask_documents=True).__getitems__([0])


HOPPER = Hardware("cuda", (9, 0), varlen=True)


def chosen(hardware: Hardware, attended: Attended, **train: Any) -> Choice[str]:
    return choose_kernels(hardware, TrainConfig(**train), "llama", 1e9, attended).attention


def test_the_kernel_follows_from_rows_model_and_gpu() -> None:
    masked = Attended(masked=True)
    assert chosen(HOPPER, masked).value == OURS
    assert chosen(HOPPER, Attended()).value == OURS  # told that there is nothing to mask
    assert chosen(HOPPER, Attended(), attention="sdpa").value == "sdpa"
    assert chosen(HOPPER, Attended(lengths=False)).value == "sdpa"
    assert chosen(Hardware(), Attended()).value == "sdpa" and chosen(Hardware(), Attended(compiled=True)).value == OURS
    both = Hardware("cuda", (9, 0), flash_attention=True, varlen=True)
    assert chosen(both, masked).value == FLASH
    for attended, why in ((Attended(True, lengths=False), "needs a mask"), (Attended(True, half=False), "in 16 bits")):
        assert chosen(both, attended).value == "sdpa" and why in chosen(both, attended).reason
        with pytest.raises(ConfigError, match=why):
            chosen(both, attended, attention="flash")
    assert chosen(Hardware("cuda", (7, 5), varlen=True), masked).value == "sdpa"
    assert chosen(HOPPER, masked, attention="eager").value == "eager"


def test_a_kernel_that_fails_or_differs_is_left_and_why_is_said(kernel, monkeypatch) -> None:
    config = AutoConfig.for_model("qwen3", **SIZES, head_dim=8)
    assert varlen.fault("cpu", config, torch.float32) == ""

    def broken(*words, **keywords):
        raise RuntimeError("FlashAttention only supports head dimension at most 256\nmore")

    monkeypatch.setattr(varlen, "varlen_attn", broken)
    assert "at most 256" in varlen.fault("cpu", config, torch.float32)
    monkeypatch.setattr(varlen, "varlen_attn", lambda q, *words, **keywords: q * 0.5)
    assert "differ" in varlen.fault("cpu", config, torch.float32)


@pytest.mark.parametrize(
    ("family", "values", "plain"),
    [
        ("llama", {}, True),
        ("qwen3", {}, True),
        ("mistral", {"sliding_window": 16}, False),
        ("mistral", {"sliding_window": None}, True),
        ("gemma2", {}, False),
        ("llama", {"attention_dropout": 0.1}, False),
    ],
)
def test_windows_caps_and_dropout_keep_their_mask(family: str, values: dict[str, Any], plain: bool) -> None:
    assert varlen.is_plain(AutoConfig.for_model(family, **{**SIZES, **values})) is plain


def on_a_gpu(monkeypatch, attention: str) -> None:
    """Choose as on a GPU, where the kernels of this file stand for its own."""
    plain = contexts.choose_kernels

    def choose(hardware, train, model_type, parameters, attended):
        kernels = plain(hardware, train, model_type, parameters, attended)
        return Kernels(Choice(attention, "flash"), kernels.liger, kernels.fp8)

    def switch(model: PreTrainedModel, kernels: Kernels) -> None:
        model.config._attn_implementation_internal = kernels.attention.value

    monkeypatch.setattr(contexts, "choose_kernels", choose)
    monkeypatch.setattr(contexts, "apply_kernels", switch)


class Graphs:
    """Stands for the compiler: what it was given to compile, which then runs as it is."""

    def __init__(self) -> None:
        self.found: list[torch.fx.GraphModule] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: object) -> Any:
        self.found.append(graph)
        return graph.forward

    @property
    def masks(self) -> list[object]:
        """What the attention's calls are given as masks."""
        calls = [node for graph in self.found for node in graph.graph.nodes if "scaled_dot" in str(node.target)]
        assert calls
        return [node.kwargs.get("attn_mask") for node in calls]


@pytest.mark.parametrize(("attention", "masked"), [("sdpa", True), (OURS, False)])
def test_a_compiled_model_is_one_graph_over_twenty_batches_and_ours_makes_no_mask(attention, masked) -> None:
    """transformers makes a mask where it can't look at the rows, which is why ours is chosen there."""
    torch._dynamo.reset()
    varlen.register()
    model, graphs = model_of("llama", attention).train(), Graphs()
    compiled = torch.compile(model.base_model, backend=graphs, dynamic=False, fullgraph=True)
    detach = attach_loss(model, True, 0.0, lambda **inputs: compiled(**inputs))
    plain = model_of("llama", "sdpa").train()
    attach_loss(plain, True, 0.0)
    for seed in range(20):
        batch = {"input_ids": torch.randint(0, 96, (2, LENGTH), generator=torch.Generator().manual_seed(seed))}
        batch["labels"] = batch["input_ids"]
        assert float(model(**batch)["loss"].detach()) == pytest.approx(float(plain(**batch)["loss"].detach()), rel=1e-5)
    detach()
    assert len(graphs.found) == 1
    assert all((mask is not None) is masked for mask in graphs.masks), graphs.masks


def test_on_a_gpu_rows_of_one_document_are_not_looked_at(monkeypatch) -> None:
    """transformers looks at their positions for documents, and a GPU's queue would have to end for that."""
    looked: list[object] = []
    found = masking.find_packed_sequence_indices
    monkeypatch.setattr(masking, "find_packed_sequence_indices", lambda ids: looked.append(ids) or found(ids))
    varlen.register()
    batch = batch_of(3, False)
    del batch["position_ids"]
    wanted = hidden_of(model_of("llama", "sdpa"), batch, monkeypatch)
    assert looked
    looked.clear()
    assert torch.equal(hidden_of(model_of("llama", OURS), batch, monkeypatch), wanted) and not looked


@pytest.mark.slow
@pytest.mark.parametrize("attention", [FLASH, OURS])
def test_a_whole_training_with_lengths_has_the_losses_of_one_with_masks(
    rows, kernel, monkeypatch, attention: str
) -> None:
    values = {"train__max_steps": 4, "train__mask_documents": True, "train__eval_steps": 2}
    wanted = course(rows.run(train(small(**values), rows).run))
    assert not kernel.seen
    on_a_gpu(monkeypatch, attention)
    found = course(rows.run(train(small(**values), rows).run))
    assert kernel.seen
    for one, other in zip(found, wanted, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-4)
        assert one.get("validation_loss", 0) == pytest.approx(other.get("validation_loss", 0), abs=1e-4)


def test_the_loss_is_chunked_although_the_gpus_attention_can_not_run_on_the_cpu(rows, monkeypatch) -> None:
    """The head is looked at before the attention is switched: afterwards nothing runs where the model still is."""
    on_a_gpu(monkeypatch, "flash_attention_2")
    heard = Heard()
    context = contexts.open_unrecorded(small(train__max_steps=2), rows, heard)
    assert context.chunked_loss and not any("chunks" in text for text in heard.notes)


def test_a_loss_that_holds_all_logits_says_so(rows, monkeypatch) -> None:
    monkeypatch.setattr(planned_model, "head_is_plain", lambda model: False)
    heard = Heard()
    context = contexts.open_unrecorded(small(train__max_steps=2), rows, heard)
    assert not context.chunked_loss
    assert any("loss in chunks off" in text and "all logits" in text for text in heard.notes), heard.notes
