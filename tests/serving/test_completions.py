"""/v1/completions by the official client, against `gptkit.generate` on the same run."""

from __future__ import annotations

import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from gptkit.inference import generate, score
from gptkit.runs.prompts import prompt_ids
from gptkit.runs.run import Run
from tests.support.server import ServerProcess

PROMPT = "Once upon a time"


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    return client.completions.create(**{"model": "plain", "prompt": PROMPT, "max_tokens": 12, **fields})


def offline(run: Run, prompt: str = PROMPT, **options: Any) -> Any:
    """Return the continuation by `gptkit.generate`."""
    ids = prompt_ids(run.tokenizer, prompt)
    options = {"max_new_tokens": 12, "stop_ids": run.text_ends, **options}
    return generate(run.model, run.tokenizer, [ids], **options)[0]


def test_greedy_text_equals_generate(client: openai.OpenAI, plain: Run) -> None:
    answer = ask(client, temperature=0)
    expected = offline(plain, sampler="greedy")
    (choice,) = answer.choices
    assert choice.text == expected.text
    assert choice.finish_reason == "length"
    assert answer.object == "text_completion"
    assert answer.model == "plain"
    assert answer.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": len(PROMPT),
        "completion_tokens": 12,
        "total_tokens": len(PROMPT) + 12,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def test_repeated_beginning_of_a_prompt_is_not_computed_again(
    client: openai.OpenAI, server: ServerProcess, plain: Run
) -> None:
    def counted() -> float:
        with urllib.request.urlopen(server.url + "/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("gptkit_cached_prompt_tokens_total{"))

    system, before = "You are the assistant of this test, and nothing else. ", counted()
    for prompt, n_cached in (
        (system + "One?", 0),
        (system + "Two?", len(system)),
        (system + "Two? And then?", len(system) + 4),
    ):
        answer = ask(client, prompt=prompt, temperature=0)
        assert answer.usage.prompt_tokens_details.cached_tokens == n_cached
        assert answer.choices[0].text == offline(plain, prompt, sampler="greedy").text
    assert counted() - before == 2 * len(system) + 4


def test_seed_reproduces_a_text_and_the_runs_samplers_are_the_default(client: openai.OpenAI, plain: Run) -> None:
    first, second, other = (ask(client, seed=seed).choices[0].text for seed in (7, 7, 8))
    assert first == second != other
    assert first == offline(plain, sampler=plain.spec.sampler, seed=7).text
    assert ask(client).choices[0].text != ask(client).choices[0].text


def test_fields_map_to_the_chain_in_its_order(client: openai.OpenAI, plain: Run) -> None:
    extra = {"top_k": 30, "min_p": 0.01, "repetition_penalty": 1.3}
    fields: dict[str, Any] = {"temperature": 1.5, "top_p": 0.9, "frequency_penalty": 0.5, "presence_penalty": -0.25}
    answer = ask(client, seed=3, logit_bias={"97": 5, "98": -100}, extra_body=extra, **fields)
    chain = [
        {"name": "logit-bias", "bias": {97: 5.0, 98: -100.0}},
        {"name": "repetition-penalty", "penalty": 1.3},
        {"name": "frequency-penalty", "penalty": 0.5},
        {"name": "presence-penalty", "penalty": -0.25},
        {"name": "temperature", "value": 1.5},
        {"name": "min-p", "p": 0.01},
        {"name": "top-k", "k": 30},
        {"name": "top-p", "p": 0.9},
    ]
    assert answer.choices[0].text == offline(plain, sampler=chain, seed=3).text


def test_chain_in_the_syntax_of_specs(client: openai.OpenAI, plain: Run) -> None:
    chain: list[Any] = [{"name": "temperature", "value": 2.0}, {"name": "typical", "p": 0.5}]
    assert ask(client, seed=1, extra_body={"sampler": chain}).choices[0].text == offline(plain, sampler=chain, seed=1).text
    greedy = ask(client, extra_body={"sampler": "greedy"}).choices[0].text
    assert greedy == offline(plain, sampler="greedy").text


def test_choices_and_prompts_are_ordered(client: openai.OpenAI, plain: Run) -> None:
    prompts = ["one", "two", "three"]
    answer = ask(client, prompt=prompts, n=2, seed=5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3, 4, 5]
    requests = [prompt_ids(plain.tokenizer, prompt) for prompt in prompts for _ in range(2)]
    options: dict[str, Any] = {"max_new_tokens": 12, "stop_ids": plain.text_ends, "sampler": plain.spec.sampler, "seed": 5}
    expected = generate(plain.model, plain.tokenizer, requests, **options)
    assert [choice.text for choice in answer.choices] == [each.text for each in expected]
    assert answer.usage.prompt_tokens == sum(map(len, prompts))


def test_prompts_of_token_ids(client: openai.OpenAI, plain: Run) -> None:
    ids = plain.tokenizer.encode(PROMPT)
    text = ask(client, temperature=0).choices[0].text
    assert ask(client, prompt=ids, temperature=0).choices[0].text == text
    both = ask(client, prompt=[ids, [97]], temperature=0)
    assert [choice.text for choice in both.choices] == [text, offline(plain, "a", sampler="greedy").text]


def test_empty_prompt(client: openai.OpenAI, plain: Run) -> None:
    assert ask(client, prompt="", temperature=0).choices[0].text == offline(plain, "", sampler="greedy").text


def test_log_probabilities(client: openai.OpenAI, plain: Run) -> None:
    answer = ask(client, temperature=0, logprobs=3)
    expected = offline(plain, sampler="greedy", top_log_probabilities=3, log_probabilities=True)
    scores = answer.choices[0].logprobs
    assert scores.token_logprobs == pytest.approx(expected.log_probabilities, abs=1e-4)
    assert len(scores.tokens) == len(scores.top_logprobs) == len(scores.text_offset) == 12
    for own, best, top in zip(scores.token_logprobs, scores.top_logprobs, expected.top_log_probabilities, strict=True):
        assert sorted(best.values()) == pytest.approx(sorted(value for _, value in top), abs=1e-4)
        assert max(best.values()) == own
    for token, data in zip(scores.tokens, (plain.tokenizer.token_bytes(token) for token in expected.ids), strict=True):
        written = token.removeprefix("bytes:").encode().decode("unicode_escape").encode("latin-1")
        assert (written if token.startswith("bytes:") else token.encode()) == data
    assert ask(client).choices[0].logprobs is None
    assert [len(best) for best in ask(client, temperature=0, logprobs=0).choices[0].logprobs.top_logprobs] == [1] * 12


def test_echo_scores_the_prompt(client: openai.OpenAI, plain: Run) -> None:
    answer = ask(client, echo=True, logprobs=1, max_tokens=0)
    (choice,) = answer.choices
    assert choice.text == PROMPT
    assert choice.logprobs.tokens == list(PROMPT)
    assert choice.logprobs.text_offset == list(range(len(PROMPT)))
    assert choice.logprobs.token_logprobs[0] is None
    expected = score(plain.model, plain.tokenizer.encode(PROMPT)).tolist()
    assert choice.logprobs.token_logprobs[1:] == pytest.approx(expected, abs=1e-4)
    longer = ask(client, echo=True, logprobs=1, temperature=0).choices[0]
    assert longer.text == PROMPT + offline(plain, sampler="greedy").text
    assert longer.logprobs.token_logprobs[1 : len(PROMPT)] == pytest.approx(expected, abs=1e-4)
    assert len(longer.logprobs.tokens) == len(PROMPT) + 12
    assert ask(client, echo=True, temperature=0).choices[0].logprobs is None


def test_stop_strings_end_the_text_and_its_tokens(client: openai.OpenAI, plain: Run) -> None:
    whole = offline(plain, sampler="greedy", max_new_tokens=60).text
    pairs = {whole[at : at + 2]: at for at in range(50, 4, -1) if whole[at : at + 2].isascii()}
    stop, at = next((pair, at) for pair, at in pairs.items() if whole.index(pair) == at)
    for stops in (stop, [stop, "never to be seen"]):
        (choice,) = ask(client, temperature=0, max_tokens=60, stop=stops, logprobs=0).choices
        assert choice.text == whole[:at]
        assert choice.finish_reason == "stop"
        assert all(start < at for start in choice.logprobs.text_offset)


def test_stop_token_ids(client: openai.OpenAI, plain: Run) -> None:
    ids = offline(plain, sampler="greedy").ids
    (choice,) = ask(client, temperature=0, extra_body={"stop_token_ids": [ids[3]]}).choices
    assert choice.finish_reason == "stop"
    assert choice.text == plain.tokenizer.decode(ids[: ids.index(ids[3])])


def test_end_token_ends_the_text_unless_ignored(client: openai.OpenAI, plain: Run) -> None:
    end = {str(plain.tokenizer.end_id): 100}
    answer = ask(client, temperature=0, logit_bias=end)
    assert answer.choices[0].model_dump(include={"text", "finish_reason"}) == {"text": "", "finish_reason": "stop"}
    assert answer.usage.completion_tokens == 0
    ignored = ask(client, temperature=0, logit_bias=end, extra_body={"ignore_eos": True}).choices[0]
    assert ignored.finish_reason == "length"


def test_best_of_returns_the_most_likely_choices(client: openai.OpenAI) -> None:
    answer = ask(client, n=8, seed=2, logprobs=0)
    mean = {choice.text: sum(choice.logprobs.token_logprobs) / len(choice.logprobs.tokens) for choice in answer.choices}
    best = ask(client, best_of=8, n=2, seed=2)
    assert [choice.text for choice in best.choices] == sorted(mean, key=lambda text: -mean[text])[:2]
    assert best.usage == answer.usage


@pytest.mark.parametrize("fields", [{}, {"n": 3, "logprobs": 2}, {"prompt": ["one", "two"], "echo": True, "logprobs": 1}])
def test_stream_equals_the_whole_answer(client: openai.OpenAI, fields: dict[str, Any]) -> None:
    whole = ask(client, seed=4, **fields)
    chunks = list(ask(client, seed=4, stream=True, stream_options={"include_usage": True}, **fields))
    *parts, last = chunks
    assert last.choices == []
    assert last.usage == whole.usage
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert all(chunk.usage is None for chunk in parts)
    for choice in whole.choices:
        own = [chunk.choices[0] for chunk in parts if chunk.choices[0].index == choice.index]
        assert "".join(part.text for part in own) == choice.text
        assert [part.finish_reason for part in own][-1] == choice.finish_reason
        assert [part.finish_reason for part in own][:-1] == [None] * (len(own) - 1)
        if choice.logprobs is not None:
            for field, values in choice.logprobs.model_dump().items():
                assert [value for part in own for value in (getattr(part.logprobs, field) or [])] == values


def test_stream_arrives_token_by_token(client: openai.OpenAI) -> None:
    ascii_only = {str(byte): -100 for byte in range(128, 256)}
    chunks = list(
        ask(client, prompt="abc", max_tokens=20, stream=True, logit_bias=ascii_only, extra_body={"ignore_eos": True})
    )
    assert len(chunks) == 20
    assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.slow
def test_concurrent_answers_are_not_mixed(client: openai.OpenAI, plain: Run) -> None:
    def one(index: int) -> tuple[str, str]:
        fields: dict[str, Any] = {"prompt": f"client {index} says", "max_tokens": 10 + 3 * index}
        if index % 2:
            fields |= {"seed": index}
            options: dict[str, Any] = {"sampler": plain.spec.sampler, "seed": index}
        else:
            fields |= {"temperature": 0}
            options = {"sampler": "greedy"}
        if index % 3:
            text = "".join(chunk.choices[0].text for chunk in ask(client, stream=True, **fields))
        else:
            text = ask(client, **fields).choices[0].text
        return text, offline(plain, fields["prompt"], max_new_tokens=fields["max_tokens"], **options).text

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(one, range(48)))
    assert [text for text, _ in results] == [expected for _, expected in results]


def test_context_bounds_the_length(client: openai.OpenAI, server: ServerProcess) -> None:
    answer = ask(client, prompt="x" * 500, max_tokens=100, temperature=0)
    assert answer.usage.completion_tokens == 12  # the context has 512 tokens
    assert answer.choices[0].finish_reason == "length"
    with pytest.raises(openai.BadRequestError, match="the prompt has 512 tokens, and the model's context is 512"):
        ask(client, prompt="x" * 512)
    assert ask(client, prompt="x" * 512, max_tokens=0, echo=True).choices[0].text == "x" * 512
    server.wait_for(server.idle)


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["plain", "chat"]
    assert client.models.retrieve("chat").owned_by == "gptkit"
    with pytest.raises(openai.NotFoundError, match="does not exist; choose one of: plain, chat"):
        client.models.retrieve("other")
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        ask(client, model="other")
