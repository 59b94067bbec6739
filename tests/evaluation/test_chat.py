"""What is left of a base that chats, and the line from base to run."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config, EvaluateConfig, GenerateConfig
from pretrain_cli.errors import ConfigError, ModelError
from pretrain_cli.evaluation import chat
from pretrain_cli.evaluation.instructions import CHECKS, Instruction, read_instructions
from pretrain_cli.evaluation.run import evaluate
from pretrain_cli.generation.conversation import Conversation
from pretrain_cli.generation.run import generate
from pretrain_cli.model.greedy import end_ids
from pretrain_cli.tokenizer import rendering
from pretrain_cli.tokenizer.chat import ChatTemplate, read_chat_template
from tests.support.tiny import SAMPLE, make_model

torch.set_num_threads(1)

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|turn|>{{ message['role'] }}: {{ message['content'] }}<|eos|>"
    "{% endfor %}{% if add_generation_prompt %}<|turn|>assistant: {% endif %}"
)


def make_chatting(folder: Path, seed: int = 0) -> Path:
    """A model with a chat template, and a control token of its own in it."""
    make_model(folder, seed=seed, vocab_size=420)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken("<|turn|>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chatting")
    make_chatting(folder / "base")
    make_chatting(folder / "run", seed=1)
    return folder


FOLLOWED = {
    "bullets": (3, "- a\n- b\n- c", "- a\n- b"),
    "numbered": (2, "Here:\n1. a\n2. b", "1. a\n3. b"),
    "json": (None, '```json\n{"name": "Ann"}\n```', "Ann is 3: {}"),
    "no_commas": (None, "A dog barks.", "A dog, a cat."),
    "upper": (None, "THE SEA IS BIG.", "The sea"),
    "lower": (None, "the sea is big.", "The sea"),
    "at_most_words": (3, "It is warm.", "It is very warm."),
    "at_least_words": (3, "It is warm.", "It is"),
    "includes": (["rain", "window"], "Rain on the window", "Rainy windows"),
    "excludes": (["red"], "A reddish rose", "A red rose"),
    "yes_or_no": (None, "Yes.", "Yes, it is."),
    "ends_with": ("The end.", "Once. The end.", "The end. Bye"),
    "starts_with": ("In short,", "In short, no.", "No, in short,"),
    "question": (None, "How are you?", "How are you? I am fine."),
    "paragraphs": (2, "One.\n\nTwo.", "One.\nTwo."),
    "quoted": (None, '"Rome"', "Rome"),
}


@pytest.mark.parametrize("check", CHECKS)
def test_each_check_tells_an_answer_that_follows_from_one_that_does_not(check: str) -> None:
    value, right, wrong = FOLLOWED[check]
    asked = Instruction("", check, value)
    assert asked.followed(right) and not asked.followed(wrong) and not asked.followed("  ")


def test_the_packaged_instructions_are_many_different_and_of_every_kind() -> None:
    found = read_instructions()
    assert len(found) >= 40 and len({each.prompt for each in found}) == len(found)
    kinds = Counter(each.check for each in found)
    assert kinds.keys() == CHECKS.keys() and min(kinds.values()) >= 2


def test_a_prompt_is_what_transformers_makes_of_the_template(models: Path) -> None:
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    messages.append({"role": "user", "content": "Bye"})
    template = read_chat_template(models / "base")
    assert template is not None
    expected = AutoTokenizer.from_pretrained(models / "base").apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    assert "<|bos|>" + template.prompts([messages])[0] == expected


def test_older_configs_hold_the_template_themselves(models: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(models / "base", tmp_path / "older")
    (folder / "chat_template.jinja").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert read_chat_template(folder) is None
    for value in (TEMPLATE, [{"name": "default", "template": TEMPLATE}]):
        (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": value}))
        found = read_chat_template(folder)
        assert found is not None and found.text == TEMPLATE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "takes more than 2 s"),
        ("{{ 9 ** (9 ** 9) }}", "takes more than 2 s"),
        ("{{ 'a' * 60000000000 }}", "MemoryError"),
        ("{{ 'a' | center(60000000000) }}", "MemoryError"),
        ("{% for i in range(99999) %}{{ 'abc ' * 50 }}{% endfor %}", "over 10,000,000 characters"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% for %}", "Expected"),
    ],
)
def test_a_template_that_would_never_end_is_refused(template: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "RENDER_S", 2)
    with pytest.raises(ModelError, match=told) as caught:
        ChatTemplate(template, ()).prompts([[{"role": "user", "content": "Hello"}]])
    assert caught.value.hint == "Leave out --chat, or use another model."


@pytest.mark.parametrize("template", [[1, 2], [{"name": "default"}], {"a": 1}, [{"name": "x", "template": "t"}], 3])
def test_what_is_no_template_is_none(models: Path, tmp_path: Path, template: object) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    odd = {"bos_token": {"no": 1}, "eos_token": 3, "pad_token": "<|pad|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, **odd}))
    assert read_chat_template(folder) is None
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    assert read_chat_template(folder) == ChatTemplate(TEMPLATE, (("pad_token", "<|pad|>"),))


def test_a_template_that_cant_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match=r"chat_template\.jinja can't be read"):
        read_chat_template(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "chat_template.jinja").symlink_to("/dev/zero")
    with pytest.raises(ModelError, match="is a device"):
        read_chat_template(tmp_path)


def asked(**settings: object) -> Config:
    return Config(generate=GenerateConfig(greedy=True, max_tokens=8, chat=True, **settings))


def test_generate_answers_through_the_template(models: Path, tmp_path: Path) -> None:
    sample = generate(asked(), Artifacts(tmp_path), prompts=["Call me"], model=str(models / "base")).samples[0]
    template = read_chat_template(models / "base")
    assert template is not None
    plain = Config(generate=GenerateConfig(greedy=True, max_tokens=8))
    (written,) = template.prompts([[{"role": "user", "content": "Call me"}]])
    expected = generate(plain, Artifacts(tmp_path), prompts=[written], model=str(models / "base")).samples[0]
    assert sample.prompt == "Call me" and sample.ids == expected.ids and sample.text == expected.text
    assert "<|turn|>" not in sample.text


def test_a_conversation_remembers_its_turns(models: Path, tmp_path: Path) -> None:
    talk = Conversation(asked(), Artifacts(tmp_path), model=str(models / "base"))
    first = talk.say("Hello")
    talk.say("And you?")
    assert [message["role"] for message in talk.messages] == ["user", "assistant", "user", "assistant"]
    assert talk.messages[1]["content"] == first.text
    talk.forget()
    assert not talk.messages


def test_a_model_without_a_template_is_refused(models: Path, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "plain")
    with pytest.raises(ModelError, match="has no chat template"):
        generate(asked(), Artifacts(tmp_path), prompts=["a"], model=str(folder))
    damaged = shutil.copytree(models / "base", tmp_path / "damaged")
    (damaged / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(ModelError, match="can't be used"):
        generate(asked(), Artifacts(tmp_path), prompts=["a"], model=str(damaged))


def few(monkeypatch: pytest.MonkeyPatch, count: int = 6) -> None:
    kept = read_instructions()[:count]
    monkeypatch.setattr(chat, "read_instructions", lambda: kept)
    monkeypatch.setattr(chat, "ANSWER_TOKENS", 12)


def scored(models: Path, tmp_path: Path, *names: str, **settings: object):
    file = tmp_path / "text.txt"
    file.write_text(SAMPLE)
    config = Config(evaluate=EvaluateConfig(on=(f"text={file}", "general"), sample=400, **settings))
    return evaluate(config, Artifacts(tmp_path / "artifacts"), models=[str(models / name) for name in names])


@pytest.mark.slow
def test_evaluate_says_what_is_left_of_a_base_that_chats(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(monkeypatch)
    result = scored(models, tmp_path, "run", "base", chat=True)
    found = result.chat
    assert found is not None and found.reference == "base" and [each.name for each in found.models] == ["run", "base"]
    run, base = found.models
    assert run.instructions == base.instructions == 6 and len(run.kept) == 6
    change = found.changes[0]
    assert change.share == pytest.approx((run.followed - base.followed) / 6)
    assert change.bits_per_byte == pytest.approx(run.bits_per_byte - base.bits_per_byte)
    # Its own greedy answers are more probable to the base than to a model with other weights.
    assert change.bits_per_byte > 0 and change.bits_per_byte_interval[0] <= change.bits_per_byte
    assert "of 6 instructions" in found.sentences[0] and "against base" in found.sentences[2]
    assert "instructions followed" in result.page.read_text()
    assert json.loads(result.report.read_text())["chat"]["reference"] == "base"


def test_bits_of_an_answer_are_those_of_a_plain_loop(models: Path, tmp_path: Path) -> None:
    from pretrain_cli.model.names import find_model
    from pretrain_cli.progress import SILENT

    named = find_model(str(models / "base"), Artifacts(tmp_path))
    talking = chat._Chatting(named, Artifacts(tmp_path), "cpu", torch.float32)
    answers = talking.answer(["<|turn|>user: a<|eos|>", "<|turn|>user: something longer<|eos|>"], SILENT)
    model = AutoModelForCausalLM.from_pretrained(models / "base")
    tokenizer = Tokenizer.from_file(str(models / "base" / "tokenizer.json"))
    prompt = tokenizer.encode("<|turn|>user: a<|eos|>").ids
    ids = list(prompt)
    for _ in range(chat.ANSWER_TOKENS):
        with torch.no_grad():
            token = int(model(torch.tensor([ids[-100:]])).logits[0, -1].argmax())
        if token == 1 or len(ids) - len(prompt) > 20:
            break
        ids.append(token)
    own = tokenizer.decode(ids[len(prompt) :])
    assert answers[0][:20] == own.strip()[:20]
    text = "Call me Ishmael"
    bits = talking.bits(["<|turn|>user: a<|eos|>"], [text], SILENT)[0]
    whole = torch.tensor([[*prompt, *tokenizer.encode(text).ids]])
    with torch.no_grad():
        logs = torch.log_softmax(model(whole).logits[0].float(), -1)
    expected = -sum(float(logs[at - 1, whole[0, at]]) for at in range(len(prompt), whole.shape[1])) / np.log(2)
    assert bits == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_what_a_model_asks_of_generate_doesnt_decide_how_it_answers(models: Path, tmp_path: Path) -> None:
    """Its generation_config.json may ask for 100,000 beams, or name an end that is no id."""
    from pretrain_cli.model.names import find_model
    from pretrain_cli.progress import SILENT

    prompts, answers = ["<|turn|>user: a<|eos|>", "<|turn|>user: b and c<|eos|>"], []
    odd = {"num_beams": 100_000, "prompt_lookup_num_tokens": 9, "forced_eos_token_id": 10**9, "eos_token_id": ["x", -1]}
    for settings in ({}, odd):
        folder = shutil.copytree(models / "base", tmp_path / f"model-{len(settings)}")
        file = folder / "generation_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
        named = find_model(str(folder), Artifacts(tmp_path))
        answers.append(chat._Chatting(named, Artifacts(tmp_path), "cpu", torch.float32).answer(prompts, SILENT))
    assert answers[0] == answers[1]
    assert end_ids(1, [2, "x", -1, None, True, 10**30], {"a": 1}, 3.5) == {1, 2}


def test_points_on_the_line_are_scored_and_the_best_is_named(models: Path, tmp_path: Path) -> None:
    result = scored(models, tmp_path, "run", "base", blend=(0, 0.25, 0.5, 1))
    line = result.blend
    assert line is not None and [point.weight for point in line.points] == [0, 0.25, 0.5, 1]
    assert [model.name for model in result.models] == ["run", "base", "run at 0.25", "run at 0.5"]
    by_name = {model.name: {text.name: text.bits_per_byte for text in model.texts} for model in result.models}
    for point in line.points:
        own = by_name[point.model]
        assert point.gain == pytest.approx(by_name["base"]["text"] - own["text"])
        assert point.forgotten == pytest.approx(own["general"] - by_name["base"]["general"])
    best = max(line.points, key=lambda point: point.gain - max(0.0, point.forgotten))
    assert line.best == best.weight and f"The best point is {best.weight:g}" in line.sentence
    assert "From base to run" in result.page.read_text()
    assert not [entry for entry in (tmp_path / "artifacts").iterdir() if "blend" in entry.name]


def test_a_line_needs_two_models_and_general_english(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs both"):
        scored(models, tmp_path, "run", blend=(0.5,))
    file = tmp_path / "text.txt"
    file.write_text(SAMPLE)
    config = Config(evaluate=EvaluateConfig(on=(f"text={file}",), blend=(0.5,)))
    with pytest.raises(ConfigError, match="general English"):
        evaluate(config, Artifacts(tmp_path / "a"), models=[str(models / "run"), str(models / "base")])
    make_model(tmp_path / "wide", hidden_size=48)
    with pytest.raises(ModelError, match="compute differently"):
        scored(models, tmp_path, str(tmp_path / "wide"), "base", blend=(0.5,))
