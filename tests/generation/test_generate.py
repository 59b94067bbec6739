"""Generation gives the tokens of transformers with every engine, and streams them whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config, GenerateConfig
from pretrain_cli.errors import ModelError, UsageError
from pretrain_cli.generation.conversation import Conversation
from pretrain_cli.generation.engines.llama_shape import llama_shape
from pretrain_cli.generation.engines.llama_shaped_engine import LlamaShapedEngine
from pretrain_cli.generation.engines.row_products import (
    IN_BLOCKS,
    LINEAR,
    SUMMED,
    Projection,
    RowProduct,
    as_stored,
    fastest_product,
    sensible_threads,
)
from pretrain_cli.generation.prompts import fit_prompt, prompt_ids
from pretrain_cli.generation.results import GeneratedText
from pretrain_cli.generation.run import generate
from pretrain_cli.generation.sampling import DrawnToken, Sampler
from pretrain_cli.generation.text_stream import TextStream
from pretrain_cli.model.files import read_model_json, read_weights, weight_files
from pretrain_cli.progress import Progress
from pretrain_cli.tokenizer.load import TokenizerInfo, read_tokenizer
from pretrain_cli.tokenizer.middles import find_middle_tokens
from tests.support.tiny import OTHER_SHAPES, SAMPLE, make_model, make_tokenizer

torch.set_num_threads(1)

ENGINE = "pretrain_cli.generation.engines.llama_shaped_engine"
PRODUCTS = "pretrain_cli.generation.engines.row_products"


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / request.param, request.param)


def write(model: Path, prompts: list[str], on_text=None, **settings: object) -> list[GeneratedText]:
    config = Config(generate=GenerateConfig(**{"max_tokens": 24, **settings}))
    return generate(config, Artifacts(model.parent), prompts=prompts, model=str(model), on_text=on_text).samples


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("num_attention_heads", 3, "don't go together"),
        ("num_attention_heads", 8, "rows instead of"),
        ("num_attention_heads", 0, "at least 1"),
        ("num_attention_heads", "x", "'x'"),
        ("num_attention_heads", None, "None"),
        ("num_attention_heads", 2.5, "2.5"),
        ("num_key_value_heads", -2, "-2"),
        ("head_dim", 7, "don't go together"),
        ("head_dim", -2, "at least 1"),
        ("num_hidden_layers", 1, "1 layer"),
        ("num_hidden_layers", 5, "lack"),
        ("hidden_size", "wide", "'wide'"),
        ("rope_parameters", {"rope_type": "llama3"}, "missing"),
        ("max_position_embeddings", -1, "-1"),
    ],
)
def test_a_config_that_does_not_fit_its_weights_is_named(tmp_path: Path, key: str, value: object, told: str) -> None:
    folder = make_model(tmp_path / "model")
    settings = read_model_json(folder / "config.json")
    if key == "hidden_size":
        del settings["head_dim"]
    (folder / "config.json").write_text(json.dumps(settings | {key: value}))
    with pytest.raises(ModelError) as caught:
        shape = llama_shape(read_model_json(folder / "config.json"))
        assert shape is not None
        LlamaShapedEngine(read_weights(weight_files(folder)), shape, "cpu", torch.float32)
    assert told in caught.value.message and caught.value.hint


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_ids_equal_those_of_transformers(model: Path, penalty: float) -> None:
    prompt = "Call me Ishmael."
    sample = write(model, [prompt], greedy=True, repetition_penalty=penalty)[0]
    ids = AutoTokenizer.from_pretrained(model)(prompt, return_tensors="pt").input_ids
    prompt_ids = ids if ids[0, 0] == 0 else torch.cat([torch.zeros(1, 1, dtype=ids.dtype), ids], dim=1)
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    candidates = [
        reference.generate(start, do_sample=False, max_new_tokens=24, repetition_penalty=penalty)[0, start.shape[1] :]
        for start in (ids, prompt_ids)
    ]
    assert sample.ids in [candidate.tolist() for candidate in candidates]


@pytest.mark.parametrize(
    "family, changes",
    [
        *OTHER_SHAPES,
        ("llama", {"attention_bias": True}),
        ("qwen3", {"hidden_act": "relu2"}),
    ],
)
def test_other_shapes_are_computed_by_our_loop_as_transformers_does(
    family: str, changes: dict, tmp_path: Path, monkeypatch
) -> None:
    folder = make_model(tmp_path / "model", family, **changes)
    shape = llama_shape(read_model_json(folder / "config.json"))
    assert shape is not None
    engine = LlamaShapedEngine(read_weights(weight_files(folder)), shape, "cpu", torch.float32)
    ids = list(range(3, 100))
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits[0]
    for max_new, product in ((4, None), (64, LINEAR), (64, SUMMED), (64, IN_BLOCKS)):
        monkeypatch.setattr(f"{ENGINE}.fastest_product", lambda *_, product=product: product)
        engine.row_product = None
        torch.testing.assert_close(engine.start([ids[:-1]], max_new)[0], expected[-2], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(engine.step([0], [ids[-1]])[0], expected[-1], atol=2e-5, rtol=1e-4)
        assert engine.row_product is product


def test_a_window_that_slides_is_left_to_transformers(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", "mistral", sliding_window=16)
    assert llama_shape(read_model_json(folder / "config.json")) is None
    assert write(folder, ["Call me Ishmael. Some years ago"], greedy=True, max_tokens=4)[0].tokens == 4


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_text_alone_in_a_batch_and_streamed(model: Path, precision: str) -> None:
    prompts = ["Call me", "The watery part of the world", ""]
    pieces: dict[int, str] = {}

    def collect(index: int, piece: str) -> None:
        pieces[index] = pieces.get(index, "") + piece

    together = write(model, prompts, collect, samples=2, seed=3, precision=precision)
    for index, prompt in enumerate(prompts):
        alone = [write(model, [prompt], seed=seed, precision=precision)[0] for seed in (3, 4)]
        assert [sample.ids for sample in alone] == [sample.ids for sample in together[2 * index : 2 * index + 2]]
    assert [pieces.get(index, "") for index in range(6)] == [sample.text for sample in together]
    assert together[0].ids != together[1].ids


@pytest.mark.parametrize("greedy", [True, False])
def test_rounding_does_not_decide_which_token_comes(model: Path, greedy: bool, monkeypatch) -> None:
    """Logits of single steps are shaken far more than rounding does; close decisions are taken from a reread."""
    monkeypatch.setattr("pretrain_cli.generation.sampling.CLOSE", 0.3)
    step = LlamaShapedEngine.step

    def shaken(*arguments: object) -> torch.Tensor:
        logits = step(*arguments)
        return logits + 0.1 * (torch.rand(logits.shape) - 0.5)

    settings = {"samples": 1 if greedy else 4, "greedy": greedy, "temperature": 1.0, "top_p": 0.9, "top_k": 40}
    still = [sample.ids for sample in write(model, ["Call me", "Some years"], **settings)]
    monkeypatch.setattr(LlamaShapedEngine, "step", shaken)
    assert [sample.ids for sample in write(model, ["Call me", "Some years"], **settings)] == still


def test_a_choice_is_sure_only_where_no_other_token_is_close() -> None:
    logits = torch.tensor([3.0, 2.99999, 1.0, -5.0])
    assert not Sampler(GenerateConfig(greedy=True), [], 0).draw(logits).sure
    assert Sampler(GenerateConfig(greedy=True), [], 0).draw(logits[1:]) == DrawnToken(0, True)
    for settings in ({"top_k": 1}, {"top_p": 0.3, "top_k": 0}):
        sampler = Sampler(GenerateConfig(**settings), [], 0)
        sampler.noise = torch.tensor([0.0, -9.0, 0.0, 0.0])
        assert sampler.draw(logits) == DrawnToken(0, False)
        assert sampler.draw(logits[[0, 2, 2, 3]]) == DrawnToken(0, True)


def test_draws_follow_the_probabilities() -> None:
    sampler = Sampler(GenerateConfig(temperature=1.0, top_p=1.0, top_k=0), [], 0)
    logits, counts = torch.tensor([0.5, 0.3, 0.2]).log(), torch.zeros(3)
    for _ in range(4000):
        token = sampler.draw(logits).token
        sampler.accept(token)
        counts[token] += 1
    torch.testing.assert_close(counts / 4000, torch.tensor([0.5, 0.3, 0.2]), atol=0.03, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_different_lengths_are_computed_together(model: Path, dtype: torch.dtype) -> None:
    shape = llama_shape(read_model_json(model / "config.json"))
    assert shape is not None
    engine = LlamaShapedEngine(read_weights(weight_files(model)), shape, "cpu", dtype)
    prompts, tokens = [[5, 9, 30], [7], [11, 12, 13, 14, 15], [8, 8, 8]], [[20, 21], [22, 23], [24, 25], [26, 27]]
    alone = []
    for prompt, (first, second) in zip(prompts, tokens, strict=True):
        engine.start([prompt], 4)
        alone.append((engine.step([0], [first])[0], engine.step([0], [second])[0]))
    engine.start(prompts, 4)
    first = engine.step([0, 1, 2, 3], [pair[0] for pair in tokens])
    second = engine.step([0, 2, 3], [tokens[row][1] for row in (0, 2, 3)])  # row 1 has ended
    reread = engine.reread([*prompts[2], *tokens[2]])
    tolerance = 1e-4 if dtype == torch.float32 else 0  # fp32 rounds; batches of the other types have one shape
    torch.testing.assert_close(first, torch.stack([pair[0] for pair in alone]), atol=tolerance, rtol=0)
    torch.testing.assert_close(second, torch.stack([alone[row][1] for row in (0, 2, 3)]), atol=tolerance, rtol=0)
    torch.testing.assert_close(reread, alone[2][1], atol=1e-4 if dtype == torch.float32 else 0.2, rtol=0)


def test_a_stop_text_ends_the_sample_and_is_never_shown(model: Path) -> None:
    free = write(model, ["Call me"], seed=1, max_tokens=40)[0]
    stop = free.text[3:6]
    shown: list[str] = []
    sample = write(model, ["Call me"], lambda _, piece: shown.append(piece), seed=1, max_tokens=40, stop=(stop,))[0]
    assert sample.finish == "stop"
    assert sample.text == free.text[: free.text.index(stop)] == "".join(shown)


def test_a_prompt_longer_than_the_context_is_cut_with_a_warning(model: Path) -> None:
    config = Config(generate=GenerateConfig(max_tokens=8))
    result = generate(config, Artifacts(model.parent), prompts=[SAMPLE * 10], model=str(model))
    assert result.samples[0].tokens >= 1
    assert "context" in result.warnings[0]


def test_probabilities_come_with_alternatives(model: Path) -> None:
    sample = write(model, ["Call me"], greedy=True, max_tokens=4, probabilities=True)[0]
    first = sample.probabilities[0]
    assert first.alternatives[0][1] == pytest.approx(first.probability)
    assert len(first.alternatives) == 5


def test_characters_split_over_tokens_are_never_shown_broken(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path, vocab_size=262)
    text = "naïve 日本語 🐋 end"
    stream = TextStream(tokenizer, [])
    pieces = [stream.push(token) for token in tokenizer.encode(text).ids] + [stream.finish()]
    assert "".join(pieces) == text == stream.text
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_character_cut_off_at_the_end_is_left_out(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path, vocab_size=262)
    stream = TextStream(tokenizer, [])
    for token in tokenizer.encode("ok 🐋").ids[:-1]:
        stream.push(token)
    stream.finish()
    assert stream.text == "ok "


def test_bytes_that_are_no_character_are_shown_and_hold_nothing_back(tmp_path: Path) -> None:
    """With 262 entries the first 256 after the specials are bytes; a model that has learned little writes any."""
    tokenizer = make_tokenizer(tmp_path, vocab_size=262)
    wrong = tokenizer.encode("日").ids[0]
    stream = TextStream(tokenizer, tokenizer.encode("ok").ids)
    pieces = [stream.push(token) for token in [wrong] * 9]
    assert "".join(pieces) == "\ufffd" * 8  # the ninth may still become a character


def test_tokens_with_half_a_character_are_shown_whole_beside_their_probabilities(tmp_path: Path) -> None:
    """With 262 entries each byte of 日 is a token: the text goes to the token that completes it."""
    tokenizer = make_tokenizer(tmp_path, vocab_size=262)
    stream = TextStream(tokenizer, [])
    pieces = [stream.push(token) for token in tokenizer.encode("日").ids]
    assert pieces[-1] == "日" and not any(pieces[:-1])


@pytest.mark.parametrize("product", [SUMMED, IN_BLOCKS])
@pytest.mark.parametrize("shape", [(1, 48), (1, 1, 48), (1, 37)])
@pytest.mark.parametrize("rows", [(37,), (40, 8, 8)])
def test_the_fast_products_of_one_row_equal_torchs_own(
    product: RowProduct, shape: tuple[int, ...], rows: tuple[int, ...], monkeypatch
) -> None:
    monkeypatch.setattr(f"{PRODUCTS}.CACHED_VALUES", 480)
    x, weights = torch.randn(shape), tuple(torch.randn(count, shape[-1]) for count in rows)
    torch.set_num_threads(2)
    try:
        found = torch.cat([product.multiply(x, part) for part in product.lay_out(weights, 2)], dim=-1)
        torch.testing.assert_close(found, torch.nn.functional.linear(x, torch.cat(weights)))
    finally:
        torch.set_num_threads(1)


def test_greedy_ids_are_the_same_with_the_fast_products(model: Path, monkeypatch) -> None:
    found = []
    for product in (LINEAR, SUMMED, IN_BLOCKS):
        monkeypatch.setattr(f"{ENGINE}.fastest_product", lambda *_, product=product: product)
        found.append(write(model, ["Call me"], greedy=True)[0].ids)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("free", [0, 1 << 40])
def test_weights_are_copied_only_where_the_memory_has_room(free: int, model: Path, monkeypatch) -> None:
    allowed: list[bool] = []

    def choose(projections: object, may_copy: bool) -> RowProduct:
        allowed.append(may_copy)
        return LINEAR

    monkeypatch.setattr(f"{ENGINE}.fastest_product", choose)
    monkeypatch.setattr(f"{ENGINE}.available_bytes", lambda: free)
    write(model, ["Call me"])
    assert allowed == [free > 0]


def test_ctrl_c_while_the_weights_are_laid_out_leaves_a_model_that_writes(model: Path, monkeypatch) -> None:
    conversation = Conversation(
        Config(generate=GenerateConfig(max_tokens=24)), Artifacts(model.parent), model=str(model)
    )
    lay_out, left = Projection.lay_out, [4]

    def interrupted(self: Projection, product: RowProduct, threads: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        lay_out(self, product, threads)

    monkeypatch.setattr(f"{ENGINE}.fastest_product", lambda *_: IN_BLOCKS)
    monkeypatch.setattr(Projection, "lay_out", interrupted)
    with pytest.raises(KeyboardInterrupt):
        conversation.say("Call me")
    assert left[0] == 0 and conversation.say(" Ishmael").tokens > 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """What row_products.py takes the time from, in seconds; two threads."""
    seconds = [0.0]
    monkeypatch.setattr(f"{PRODUCTS}.time.perf_counter", lambda: seconds[0])
    torch.set_num_threads(2)
    yield seconds
    torch.set_num_threads(1)


@pytest.mark.parametrize(("slow", "others", "threads"), [(False, 0.0, 2), (True, 0.0, 2), (True, 1.0, 1)])
def test_one_thread_computes_where_another_process_holds_the_cores(
    slow: bool, others: float, threads: int, clock: list[float], monkeypatch
) -> None:
    def product(row: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        clock[0] += 9.0 if slow and torch.get_num_threads() > 1 else 1.0
        return row

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("pretrain_cli.model.devices.available_cores", lambda: 2)
    monkeypatch.setattr("pretrain_cli.model.devices._busy_cores", lambda: others)
    monkeypatch.setattr(f"{PRODUCTS}.summed_product", product)
    assert sensible_threads(torch.zeros(8, 4)) == threads
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("may_copy", "seconds", "chosen"), [(True, 1.0, True), (True, 1.9, False), (False, 1.0, True)])
def test_a_faster_product_of_one_row_is_taken_where_it_pays(
    may_copy: bool, seconds: float, chosen: bool, clock: list[float], monkeypatch
) -> None:
    def taking(seconds: float) -> RowProduct:
        def product(row: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            clock[0] += seconds
            return row

        return RowProduct(as_stored, product)

    linear, other = taking(2.0), taking(seconds)
    monkeypatch.setattr(f"{PRODUCTS}.LINEAR", linear)
    monkeypatch.setattr(f"{PRODUCTS}.{'IN_BLOCKS' if may_copy else 'SUMMED'}", other)
    projections = [Projection((torch.zeros(8, 4),), None, 0) for _ in range(3)]
    assert fastest_product(projections, may_copy) is (other if chosen else linear)


def test_a_bos_in_front_stays_where_a_prompt_is_cut() -> None:
    ids, warning = fit_prompt([7, *range(100, 200)], 32, 8, bos_id=7)
    assert ids == [7, *range(177, 200)] and "first 77" in warning
    assert fit_prompt([*range(100, 200)], 32, 8, bos_id=7)[0] == [*range(176, 200)]


def test_what_is_not_streamed_shows_how_far_it_is(model: Path) -> None:
    told: list[str] = []

    class Told(Progress):
        def stage(self, name: str, total: float | None = None, unit: str = "") -> None:
            told.append(f"{name} {total}")

        def advance(self, completed: float, **facts: float | str) -> None:
            told.append(str(completed))

    config = Config(generate=GenerateConfig(max_tokens=6, samples=2))
    generate(config, Artifacts(model.parent), Told(), prompts=["Call me", "a"], model=str(model))
    assert told[:2] == [f"loading {model.name} None", f"writing with {model.name} 24"] and int(told[-1]) > 12


def test_a_tokenizer_bigger_than_the_embedding_is_a_model_error(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "small", vocab_size=300)
    with pytest.raises(ModelError, match="embedding"):
        write(folder, ["x"])


def test_damaged_json_beside_the_weights_is_a_model_error(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(ModelError, match="generation_config"):
        write(folder, ["x"])


def test_nan_in_one_row_of_the_embedding_is_a_model_error_when_it_is_met(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "nan")
    model = AutoModelForCausalLM.from_pretrained(folder)
    first = write(folder, ["Call me"], greedy=True)[0].ids[0]
    model.model.embed_tokens.weight.data[first] = float("nan")
    model.save_pretrained(folder)
    with pytest.raises(ModelError, match="finite"):
        write(folder, ["Call me"], greedy=True)


def test_a_conversation_goes_on_from_all_that_was_typed_and_written(model: Path) -> None:
    config = Config(generate=GenerateConfig(max_tokens=6, greedy=True))
    conversation = Conversation(config, Artifacts(model.parent), model=str(model))
    shown: list[str] = []
    first = conversation.say("Call me", shown.append)
    assert "".join(shown) == first.text
    second = conversation.say(" and")
    assert second.prompt == f"Call me{first.text} and"
    assert second.text == write(model, [second.prompt], greedy=True, max_tokens=6)[0].text
    conversation.forget()
    assert conversation.say("Call me").text == first.text


def test_the_next_turn_reads_only_what_is_new(model: Path, monkeypatch) -> None:
    read: list[int] = []
    forward = LlamaShapedEngine._forward

    def counted(self: LlamaShapedEngine, ids: torch.Tensor, *rest: object) -> torch.Tensor:
        read.append(ids.shape[1])
        return forward(self, ids, *rest)

    monkeypatch.setattr(LlamaShapedEngine, "_forward", counted)
    conversation = Conversation(
        Config(generate=GenerateConfig(max_tokens=4)), Artifacts(model.parent), model=str(model)
    )
    conversation.say("Call me Ishmael. Some years ago, never mind how long precisely")
    first, read[:] = read[0], []
    second = conversation.say(" and then")
    assert second.text == write(model, [second.prompt], seed=1, max_tokens=4)[0].text
    assert read[0] < first


def test_a_lone_surrogate_is_a_usage_error(model: Path) -> None:
    with pytest.raises(UsageError):
        write(model, ["bad \ud800"])


def test_a_truncated_weights_file_is_a_model_error(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "cut")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError):
        write(folder, ["x"])


def test_a_folder_without_weights_is_a_model_error(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "none")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError):
        write(folder, ["x"])


def test_nan_weights_are_a_model_error(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "nan")
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.model.norm.weight.data.fill_(float("nan"))
    model.save_pretrained(folder)
    with pytest.raises(ModelError):
        write(folder, ["x"])


def test_a_middle_is_written_between_prompt_and_suffix(tmp_path: Path) -> None:
    base = make_model(tmp_path / "coder", vocab_size=420)
    with pytest.raises(UsageError, match="no control tokens"):
        write(base, ["def area(r):"], suffix="return area")
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.add_special_tokens(["<fim_prefix>", "<fim_suffix>", "<fim_middle>"])
    tokenizer.save(str(base / "tokenizer.json"))
    filled = write(base, ["def area(r):"], suffix="return area", greedy=True, max_tokens=8)[0]
    typed = "<fim_prefix>def area(r):<fim_suffix>return area<fim_middle>"
    assert filled.ids == write(base, [typed], greedy=True, max_tokens=8)[0].ids
    assert (filled.prompt, filled.suffix) == ("def area(r):", "return area")
    with pytest.raises(UsageError, match="--chat"):
        write(base, ["def area(r):"], suffix="return area", chat=True)


@given(st.integers(0, 90), st.integers(1, 90), st.integers(8, 64), st.integers(1, 40))
def test_text_around_a_middle_is_cut_to_what_is_nearest_to_it(
    prompts_tokenizer: tuple[Tokenizer, TokenizerInfo], before: int, after: int, context: int, room: int
) -> None:
    tokenizer, info = prompts_tokenizer
    config = GenerateConfig(suffix="9" * after, max_tokens=room)
    ids, warning = prompt_ids("7" * before, config, tokenizer, info, context, "coder")
    tokens = find_middle_tokens(tokenizer)
    assert tokens is not None and len(ids) < context
    assert [index for index in ids if index >= tokens.prefix] == [tokens.prefix, tokens.suffix, tokens.middle]
    seen = tokenizer.decode(ids)
    assert (seen == "7" * before + "9" * after) is not bool(warning)


@pytest.fixture(scope="module")
def prompts_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, TokenizerInfo]:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = make_tokenizer(folder)
    tokenizer.add_special_tokens(["<fim_prefix>", "<fim_suffix>", "<fim_middle>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer, read_tokenizer(folder)
