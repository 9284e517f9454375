"""Generation in turns equals generation at once, and reads only what is new."""

from __future__ import annotations

from typing import Any

import pytest

import gptkit
from gptkit.core.errors import GptkitError
from gptkit.inference import Session, generate
from tests.support.fakes import Bytes

TOKENIZER = Bytes()
MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"attention": {"n_heads": 2, "window": 5}},
    "recurrent": {"attention": {"name": "gated-delta", "n_heads": 2}, "position": "none"},
    "dynamic": {"position": {"name": "rotary", "scaling": {"name": "dynamic", "factor": 2, "original_context_length": 16}}},
}


def make(name: str, context_length: int = 48) -> gptkit.GPT:
    spec = {"d_model": 16, "n_layers": 2, "context_length": context_length, "attention": {"n_heads": 2}, **MODELS[name]}
    return gptkit.GPT(spec, vocab_size=TOKENIZER.vocab_size, seed=3).eval()


@pytest.mark.parametrize("name", MODELS)
def test_turns_equal_generation_from_the_whole_text(name: str) -> None:
    model = make(name)
    session = Session(model, TOKENIZER)
    text = list(b"hello")
    for turn in range(3):
        expected = generate(model, TOKENIZER, [text], max_new_tokens=7, seed=turn, stop_ids=())[0]
        reply = session.stream(text, max_new_tokens=7, seed=turn)
        assert "".join(reply) == expected.text
        assert reply.ids == expected.ids
        assert reply.finish == "length"
        text = [*text, *reply.ids, *b"\n?"]


def test_only_new_tokens_are_read() -> None:
    model = make("plain")
    session = Session(model, TOKENIZER)
    text = list(b"a first question")
    list(reply := session.stream(text, max_new_tokens=4, seed=1))
    assert session.n_read == len(text) + 3  # the last token of a reply is processed with the next prompt
    text = [*text, *reply.ids, *b" and more"]
    list(session.stream(text, max_new_tokens=1, seed=1))
    assert session.n_read == len(text)


@pytest.mark.parametrize("name", ["plain", "recurrent"])
def test_a_changed_beginning_is_read_again(name: str) -> None:
    model = make(name)
    session = Session(model, TOKENIZER)
    list(session.stream(list(b"one text"), max_new_tokens=4))
    other = list(b"one other text")
    expected = generate(model, TOKENIZER, [other], max_new_tokens=6, seed=0, stop_ids=())[0]
    assert "".join(session.stream(other, max_new_tokens=6)) == expected.text


def test_a_full_context_slides_as_generate_does() -> None:
    model = make("plain", context_length=16)
    session = Session(model, TOKENIZER)
    for prompt in (list(b"short"), list(b"a prompt that is longer than the context")):
        expected = generate(model, TOKENIZER, [prompt], max_new_tokens=40, seed=5, stop_ids=())[0]
        reply = session.stream(prompt, max_new_tokens=40, seed=5)
        assert "".join(reply) == expected.text


def test_full_context_stops_with_overflow_stop() -> None:
    session = Session(make("plain", context_length=16), TOKENIZER)
    reply = session.stream(list(b"short"), max_new_tokens=40, overflow="stop")
    list(reply)
    assert (len(reply.ids), reply.finish) == (12, "length")
    with pytest.raises(GptkitError, match="the text has 17 tokens, and the model's context 16"):
        session.stream(list(b"x" * 17), overflow="stop")


def test_an_interrupted_reply_leaves_a_usable_session(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("plain")
    session = Session(model, TOKENIZER)
    reply = session.stream(list(b"hello"), max_new_tokens=20)
    next(reply)
    with monkeypatch.context() as patch:
        patch.setattr(session, "_forward", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        list(reply)
    assert reply.finish == "interrupted"
    expected = generate(model, TOKENIZER, ["hello you"], max_new_tokens=6, seed=0, stop_ids=())[0]
    assert "".join(session.stream(list(b"hello you"), max_new_tokens=6)) == expected.text
