"""Conversations: use of the cache, discarded messages when the context is full, and system messages."""

from __future__ import annotations

from pathlib import Path

import pytest

import gptkit
from gptkit.components.tokenizer.byte import ByteSpec
from gptkit.core.errors import GptkitError
from gptkit.runs.prompts import chat_prompt, imported_ends
from tests.support.chat_run import make_chat_run

pytest.importorskip("jinja2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> gptkit.Run:
    return gptkit.load(make_chat_run(tmp_path_factory.mktemp("chat") / "run"))


def test_a_turn_equals_a_chat_with_all_messages(run: gptkit.Run) -> None:
    talk = run.conversation(system="hello", max_new_tokens=12, sampler=["greedy"])
    first = talk.say("hello there")
    read = talk.n_read
    second = talk.say("hello you")
    messages = [{"role": "system", "content": "hello"}, {"role": "user", "content": "hello there"}]
    assert first == run.chat(messages, max_new_tokens=12, sampler=["greedy"])
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "hello you"}]
    assert second == run.chat(messages, max_new_tokens=12, sampler=["greedy"])
    ids, _ = chat_prompt(run.tokenizer, messages)
    assert talk.n_read - read < len(ids)  # the rest came from the cache
    assert [message["role"] for message in talk.messages] == ["user", "assistant"] * 2


def test_the_oldest_messages_are_discarded_when_the_context_is_full(tmp_path: Path) -> None:
    run = gptkit.load(make_chat_run(tmp_path / "run", context_length=64))
    talk = run.conversation(system="hello", max_new_tokens=8, seed=1)
    while not talk.n_discarded:
        talk.say("hello there you")
        assert len(talk.messages) < 20
    assert talk.n_discarded == 2
    assert talk.messages[0]["content"] == "hello there you"  # the record is complete
    talk.reset()
    assert (talk.messages, talk.n_discarded, talk.system) == ([], 0, "hello")


def test_full_context_is_refused_with_overflow_stop(tmp_path: Path) -> None:
    run = gptkit.load(make_chat_run(tmp_path / "run", context_length=64))
    talk = run.conversation(max_new_tokens=8, seed=1, overflow="stop")
    talk.say("hello")
    before = list(talk.messages)
    with pytest.raises(GptkitError, match="the model's context 64"):
        talk.say("hello " * 60)
    assert talk.messages == before


def test_without_a_template_plain_text_is_continued(tmp_path: Path) -> None:
    tokenizer = ByteSpec().fit(iter(()))
    model = gptkit.GPT({"d_model": 16, "n_layers": 1, "attention": {"n_heads": 2}}, vocab_size=tokenizer.vocab_size)
    plain = gptkit.load(gptkit.save_run(tmp_path / "plain", model, tokenizer))
    talk = plain.conversation(max_new_tokens=5, sampler=["greedy"])
    first = talk.say("hello")
    assert first == plain.generate("hello", max_new_tokens=5, sampler=["greedy"])
    assert talk.say("you") == plain.generate(f"hello{first}\nyou", max_new_tokens=5, sampler=["greedy"])


@pytest.mark.parametrize(("given", "ends"), [(7, [7]), ([7, 9], [7, 9]), (None, []), (True, [])])
def test_end_tokens_of_an_imported_model_end_a_reply(run: gptkit.Run, given: object, ends: list[int]) -> None:
    provenance = {"imported": {"generation": {"eos_token_id": given}}}
    assert imported_ends(provenance) == ends
    imported = gptkit.Run(run.directory, run.spec, run.model, run.tokenizer, 0, provenance)
    assert chat_prompt(run.tokenizer, "hello", imported.ends)[1] >= set(ends)
    assert set(imported.text_ends) == {run.tokenizer.end_id, *ends}
