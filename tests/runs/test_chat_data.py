"""Conversations as training data: the loss is computed on the assistant's turns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gptkit
from gptkit.components.data.jsonl import JsonLinesDataSpec
from gptkit.components.tokenizer.bpe import BpeSpec
from gptkit.components.tokenizer.hugging_face import HuggingFaceTokenizer
from gptkit.core.errors import DataError, SpecError, TokenizerError
from gptkit.data.encoding import Encoder
from gptkit.data.preparation import prepare
from gptkit.kinds.data import Document
from gptkit.nn.head import IGNORED
from gptkit.text.chat import chat_ids

pytest.importorskip("jinja2")

MARKED = """{%- for message in messages %}
    {{- "<|turn|>" + message.role + "\\n" }}
    {%- if message.role == "assistant" %}
        {%- generation %}{{ message.content + "<|done|>" }}{% endgeneration %}{{ "\\n" }}
    {%- else %}{{ message.content + "<|done|>\\n" }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<|turn|>assistant\\n" }}{% endif %}"""
PLAIN = MARKED.replace("{%- generation %}{{ ", "{{- ").replace("{% endgeneration %}", "")
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello there, who are you?"},
    {"role": "assistant", "content": "  I am you, naïve you 🙂."},
    {"role": "user", "content": "Are you?"},
    {"role": "assistant", "content": "you!"},
]


@pytest.fixture(scope="module")
def tokenizer_json() -> str:
    spec = BpeSpec(vocab_size=300, pattern="gpt2", special_tokens=("<|turn|>", "<|done|>"))
    return spec.fit(iter(["hello there, hello you, who are you"])).to_tokenizer_json()


def tokenizer(tokenizer_json: str, template: str) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(tokenizer_json.encode(), None, "<|endoftext|>", template)


def encoded(words: HuggingFaceTokenizer, messages: list[dict[str, Any]]) -> tuple[list[int], list[bool]]:
    document = Document("", "here", messages=tuple(messages))
    ((ids, masked),) = Encoder(words)([document])
    assert masked is not None
    return ids, masked.tolist()


@pytest.mark.parametrize("template", [MARKED, PLAIN], ids=["marked", "by-prompt"])
def test_ids_and_mask_are_those_of_transformers(tokenizer_json: str, template: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    (tmp_path / "tokenizer.json").write_text(tokenizer_json)
    reference = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    options: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
    expected = reference.apply_chat_template(MESSAGES, chat_template=MARKED, **options)
    ids, masked = encoded(tokenizer(tokenizer_json, template), MESSAGES)
    assert ids == expected["input_ids"]
    assert [not each for each in masked] == [bool(each) for each in expected["assistant_masks"]]


@pytest.mark.parametrize("template", [MARKED, PLAIN], ids=["marked", "by-prompt"])
def test_loss_is_computed_on_the_assistants_turns_only(tokenizer_json: str, template: str) -> None:
    words = tokenizer(tokenizer_json, template)
    ids, masked = encoded(words, MESSAGES)
    assert ids == chat_ids(words, MESSAGES, reply=False)
    learned = words.decode([token for token, out in zip(ids, masked, strict=True) if not out])
    assert learned == "  I am you, naïve you 🙂.<|done|>you!<|done|>"


def test_special_tokens_in_messages_are_text_and_masked_alike(tokenizer_json: str) -> None:
    words = tokenizer(tokenizer_json, PLAIN)
    messages = [{"role": "user", "content": "<|done|> you"}, {"role": "assistant", "content": "a <|turn|> b"}]
    ids, masked = encoded(words, messages)
    assert ids == chat_ids(words, messages, reply=False)
    assert ids.count(words.special_tokens["<|turn|>"]) == 2
    assert words.decode([token for token, out in zip(ids, masked, strict=True) if not out]) == "a <|turn|> b<|done|>"


CALLS = [
    {"role": "user", "content": "How many?"},
    {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "count", "arguments": "{}"}}]},
    {"role": "tool", "content": "42"},
    {"role": "assistant", "content": "42!"},
]


@pytest.mark.parametrize("mask_prompt", [True, False])
@pytest.mark.parametrize("join", ["+", "~"])
def test_calls_that_the_template_omits_are_reported(tokenizer_json: str, join: str, mask_prompt: bool) -> None:
    words = tokenizer(tokenizer_json, PLAIN.replace("message.content +", f"message.content {join}"))
    document = Document("", "calls.jsonl:1", messages=tuple(CALLS), mask_prompt=mask_prompt)
    with pytest.raises(TokenizerError, match=r"calls\.jsonl:1: message 2 has tool_calls, which the chat template does not"):
        list(Encoder(words)([document]))


def test_reasoning_that_the_template_omits_is_reported(tokenizer_json: str) -> None:
    thought = {"role": "assistant", "content": "4", "reasoning_content": "2 and 2"}
    messages = ({"role": "user", "content": "2 + 2?"}, thought)
    with pytest.raises(TokenizerError, match=r"here: message 2 has reasoning_content, which the chat template does not"):
        list(Encoder(tokenizer(tokenizer_json, PLAIN))([Document("", "here", messages=messages)]))
    # As in released templates, the reasoning of earlier turns is omitted.
    shown = "(message.reasoning_content ~ '|' if loop.last and message.reasoning_content else '') ~ message.content"
    words = tokenizer(tokenizer_json, PLAIN.replace("message.content +", f"({shown}) +"))
    ((ids, _),) = Encoder(words)([Document("", "here", messages=messages)])
    assert "2 and 2|4" in words.decode(ids)
    earlier = (*messages, {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes"})
    ((ids, _),) = Encoder(words)([Document("", "here", messages=earlier, mask_prompt=False)])
    assert "2 and 2" not in words.decode(ids)


@pytest.mark.parametrize("mask_prompt", [True, False])
@pytest.mark.parametrize("join", ["+", "~"])
def test_a_null_content_is_empty(tokenizer_json: str, join: str, mask_prompt: bool) -> None:
    call = '(message.tool_calls[0].function.name if message.tool_calls else "")'
    template = PLAIN.replace("- message.content +", f"- message.content {join} {call} {join}")
    assert template != PLAIN
    words = tokenizer(tokenizer_json, template)
    ids, masked = next(Encoder(words)([Document("", "here", messages=tuple(CALLS), mask_prompt=mask_prompt)]))
    assert words.decode(ids) == (
        "<|turn|>user\nHow many?<|done|>\n<|turn|>assistant\ncount<|done|>\n<|turn|>tool\n42<|done|>\n"
        "<|turn|>assistant\n42!<|done|>\n"
    )
    assert (masked is None) == (not mask_prompt)


def test_a_template_that_changes_earlier_turns_is_refused(tokenizer_json: str) -> None:
    template = PLAIN.replace('message.content + "<|done|>"', "(message.content if loop.last else '…') + \"<|done|>\"")
    with pytest.raises(
        TokenizerError, match=r"here: message 3, of the assistant, is rendered otherwise than after its prompt"
    ):
        encoded(tokenizer(tokenizer_json, template), MESSAGES)
    with pytest.raises(TokenizerError, match=r"message 1, of the assistant, answers no prompt"):
        encoded(tokenizer(tokenizer_json, PLAIN), MESSAGES[2:])


def conversations(tmp_path: Path, count: int = 40) -> Path:
    file = tmp_path / "chats.jsonl"
    lines = [[{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"you {n}"}] for n in range(count)]
    file.write_text("\n".join(json.dumps({"messages": messages}) for messages in lines))
    return file


def test_prepared_corpus_contains_rendered_conversations(tokenizer_json: str, tmp_path: Path) -> None:
    data = JsonLinesDataSpec(path=str(conversations(tmp_path)), messages_field="messages")
    prepared = prepare(data, tokenizer(tokenizer_json, PLAIN), tmp_path / "data", tmp_path)
    words = tokenizer(tokenizer_json, PLAIN)
    text = words.decode(prepared.train.tokens.tolist())
    # The template begins and ends a document, with no <|endoftext|> between two documents.
    assert text.startswith("<|turn|>user\nsay ")
    assert "<|endoftext|>" not in text
    assert prepared.train_counts.documents + prepared.validation_counts.documents == 40
    _, targets, _ = prepared.train_windows(data, 64).gather(np.array([0]))
    learned = words.decode(targets[targets != IGNORED].tolist())
    assert set(learned.replace("<|done|>", " ").split()) <= {"you", *map(str, range(40))}
    everything = data.model_copy(update={"mask_prompt": False})
    assert prepare(everything, words, tmp_path / "all", tmp_path).train_counts.masked == 0


def test_a_model_is_trained_on_conversations(tokenizer_json: str, tmp_path: Path) -> None:
    directory = tmp_path / "tokenizer"
    directory.mkdir()
    (directory / "tokenizer.json").write_text(tokenizer_json)
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>", "chat_template": PLAIN}))
    spec = {
        "tokenizer": {"name": "hugging-face", "path": str(directory)},
        "model": {"d_model": 16, "n_layers": 1, "context_length": 32, "attention": {"n_heads": 2}},
        "data": {"name": "jsonl", "path": str(conversations(tmp_path)), "messages_field": "messages"},
        "training": {"steps": 2, "batch_size": 2, "evaluate_batches": 1, "sample_tokens": 0, "device": "cpu"},
    }
    run = gptkit.train(spec, tmp_path / "run", progress=False)
    assert run.finished
    assert np.isfinite(run.evaluate()["loss"])
    assert torch.isfinite(run.model.get_parameter("blocks.0.attention.qkv.weight")).all()
    plain = {**spec, "tokenizer": "byte"}
    with pytest.raises(TokenizerError, match=r"chats\.jsonl:\d+: the tokenizer has no chat template"):
        gptkit.train(plain, tmp_path / "plain", progress=False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"messages": "hi"}', "field 'messages' is not a list of messages"),
        ('{"messages": [{"content": "hi"}]}', "message 1 of 'messages' is not an object with a 'role'"),
        ('{"messages": [{"role": "user", "content": 3}]}', "message 1 of 'messages': field 'content' is not a string"),
        ('{"messages": [{"role": "user", "content": "hi"}]}', "no message of the role 'assistant'"),
        ('{"text": "hi"}', "no field 'messages'; there is 'text'"),
    ],
)
def test_a_bad_line_is_reported_with_its_number(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(DataError, match=rf"chats\.jsonl:1: .*{message}"):
        list(JsonLinesDataSpec(path=str(file), messages_field="messages").documents(tmp_path))


def test_prompt_and_conversation_are_mutually_exclusive() -> None:
    with pytest.raises(SpecError, match="a conversation contains its prompts"):
        gptkit.build({"model": {}, "data": {"name": "jsonl", "prompt_field": "q", "messages_field": "messages"}})


def test_a_conversation_is_not_cut_for_validation(tokenizer_json: str, tmp_path: Path) -> None:
    data = JsonLinesDataSpec(path=str(conversations(tmp_path, 1)), messages_field="messages")
    with pytest.raises(DataError, match="too few conversations"):
        prepare(data, tokenizer(tokenizer_json, PLAIN), tmp_path / "data", tmp_path)
