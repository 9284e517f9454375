"""Output of random models conforms to the constraint and ends where the constraint allows it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from gptkit_structured.sampler import StructuredSpec

import gptkit
from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec
from gptkit.kinds.tokenizer import Tokenizer, TokenizerSpec
from gptkit.testing import parametrize_checks

CORPUS = 'the quick brown fox {"name": "a", "age": 12} jumps over [1, 2, 3] dogs: true, false, 2024-01-31 and naïve 猫. '
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "naïve", "猫"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
DATE = r"[0-9]{4}-(0[1-9]|1[0-2])-[0-3][0-9]( (naïve|猫))?"


@cache
def tokenizer(name: str) -> Tokenizer:
    fields = {"byte": {}, "bpe": {"vocab_size": 320}}[name]
    spec = gptkit.default_registry().component("tokenizer", name).model_validate({"name": name, **fields})
    assert isinstance(spec, TokenizerSpec)
    made = spec.fit(iter([CORPUS] * 4))
    assert made.end_id is not None
    return made


def structured(**fields: Any) -> SamplerSpec:
    spec = gptkit.default_registry().component("sampler", "structured").model_validate({"name": "structured", **fields})
    assert isinstance(spec, SamplerSpec)
    return spec


def build(tokens: Tokenizer, batch: int = 1, **fields: Any) -> Sampler:
    return structured(**fields).build(SamplerContext(tokens.vocab_size, batch, tokens))


def write(sampler: Sampler, tokens: Tokenizer, seed: int, limit: int = 400) -> Iterator[tuple[list[int], set[int]]]:
    """Yield the ids that a model of random logits generates after a prompt, and the ids that are allowed next."""
    generator = torch.Generator().manual_seed(seed)
    prompt, ids = tokens.encode("a prompt {"), []
    for _ in range(limit):
        logits = torch.randn(1, tokens.vocab_size, generator=generator) * 3
        out = sampler(logits, [[*prompt, *ids]])
        allowed = set((out[0] > -torch.inf).nonzero().flatten().tolist())
        assert torch.equal(out[0, sorted(allowed)], logits[0, sorted(allowed)])
        yield ids, allowed
        chosen = int(torch.multinomial(out.softmax(-1), 1, generator=generator))
        if chosen == tokens.end_id:
            return
        ids = [*ids, chosen]
    raise AssertionError("it did not end")


def text(sampler: Sampler, tokens: Tokenizer, seed: int) -> str:
    *_, (ids, _) = write(sampler, tokens, seed)
    return tokens.decode(ids)


@pytest.mark.parametrize("name", ["byte", "bpe"])
def test_output_of_a_random_model_matches_a_regex_and_ends_only_at_a_match(name: str) -> None:
    tokens = tokenizer(name)
    for seed in range(12):
        for pattern in (DATE, "(ab|cd){0,3}"):
            for ids, allowed in write(build(tokens, regex=pattern), tokens, seed):
                fits = re.fullmatch(pattern, tokens.decode(ids)) is not None
                assert (tokens.end_id in allowed) == fits
            assert fits


@pytest.mark.parametrize("name", ["byte", "bpe"])
@pytest.mark.parametrize("whitespace", [False, True])
def test_output_of_a_random_model_conforms_to_a_json_schema(name: str, whitespace: bool) -> None:
    tokens = tokenizer(name)
    for seed in range(8):
        written = text(build(tokens, json_schema=PERSON, whitespace=whitespace), tokens, seed)
        jsonschema.validate(json.loads(written), PERSON)


def test_output_of_a_random_model_conforms_to_a_grammar() -> None:
    tokens = tokenizer("bpe")
    grammar = 'start: "(" start ")" | word\nword: /[a-c]{1,3}/'
    for seed in range(10):
        written = text(build(tokens, grammar=grammar), tokens, seed)
        depth = written.count("(")
        assert re.fullmatch(rf"\({{{depth}}}[a-c]{{1,3}}\){{{depth}}}", written)


def test_any_json_without_fields() -> None:
    tokens = tokenizer("byte")
    ((_, allowed),) = [next(write(build(tokens), tokens, 0))]
    assert {chr(token) for token in allowed} == set('{["-0123456789tfn')


def test_special_tokens_and_unused_ids_are_never_generated() -> None:
    spec = gptkit.default_registry().component("tokenizer", "byte").model_validate({"special_tokens": ["<|user|>"]})
    assert isinstance(spec, TokenizerSpec)
    tokens = spec.fit(iter(()))
    sampler = structured(regex="(?s:.*)").build(SamplerContext(tokens.vocab_size + 5, 1, tokens))
    out = sampler(torch.zeros(1, tokens.vocab_size + 5), [[1, 2]])
    allowed = set((out[0] > -torch.inf).nonzero().flatten().tolist())
    assert allowed - set(range(256)) == {tokens.end_id}
    assert ord("<") in allowed


def test_rows_are_independent_and_can_be_removed() -> None:
    tokens = tokenizer("byte")
    sampler = build(tokens, 3, regex="ax|by|cz")
    logits = torch.zeros(3, tokens.vocab_size)
    prompts = [[65], [66, 67], []]
    sampler(logits, prompts)
    histories = [[*prompt, ord(letter)] for prompt, letter in zip(prompts, "abc", strict=True)]
    sampler.reorder([2, 0, 0])
    out = sampler(logits, [histories[2], histories[0], histories[0]])
    assert [(row > -torch.inf).nonzero().flatten().tolist() for row in out] == [[ord("z")], [ord("x")], [ord("x")]]
    out = sampler(logits, [[*histories[2], ord("z")], histories[0], [*histories[0], ord("x")]])
    assert [(row > -torch.inf).nonzero().flatten().tolist() for row in out] == [[tokens.end_id], [ord("x")], [tokens.end_id]]
    # A row that has ended and is still in the batch may only end again.
    ended = [*histories[0], ord("x"), tokens.end_id]
    out = sampler(logits, [[*histories[2], ord("z")], histories[0], ended])
    assert (out[2] > -torch.inf).nonzero().flatten().tolist() == [tokens.end_id]


def test_row_that_cannot_conform_continues_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    tokens = tokenizer("byte")
    sampler = build(tokens, regex="a+")
    logits = torch.zeros(1, tokens.vocab_size)
    logits[0, ord("a")] = -torch.inf
    assert torch.equal(sampler(logits, [[1]]), logits)
    with caplog.at_level(logging.WARNING, "gptkit"):
        assert torch.equal(sampler(logits, [[1, 2]]), logits)
    assert "without structure" in caplog.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"regex": "a(b"}, r"regex: is not supported: .*unclosed group"),
        ({"regex": "(?=a)b"}, r"regex: .*look-around"),
        ({"json_schema": {"type": "objekt"}}, r"json_schema: is not supported: Invalid type: objekt"),
        ({"json_schema": {"type": "array", "uniqueItems": True}}, r"Unimplemented keys: \[\"uniqueItems\"\]"),
        ({"grammar": "start: foo\n"}, r"grammar: .*unknown name: \"foo\""),
        ({"regex": "a", "grammar": 'start: "a"'}, "regex and grammar exclude each other"),
    ],
)
def test_unsupported_constraints_are_reported_when_the_spec_is_read(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    file = tmp_path / "gpt.json"
    file.write_text(json.dumps({"model": {}, "sampler": [{"name": "structured", **fields}]}))
    with pytest.raises(gptkit.SpecError, match=message) as caught:
        gptkit.open_spec(file)
    assert caught.value.problems[0].line == 1


def test_missing_requirements_are_reported() -> None:
    with pytest.raises(gptkit.GptkitError, match="requires a tokenizer"):
        structured().build(SamplerContext(10))
    spec = gptkit.default_registry().component("tokenizer", "byte").model_validate({"end_token": None})
    assert isinstance(spec, TokenizerSpec)
    with pytest.raises(gptkit.GptkitError, match="end token"):
        structured().build(SamplerContext(256, 1, spec.fit(iter(()))))


def test_output_of_a_run_conforms(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(CORPUS * 30, encoding="utf-8")
    (tmp_path / "gpt.yaml").write_text(
        """
        tokenizer: {name: bpe, vocab_size: 300}
        model: {d_model: 16, n_layers: 1, context_length: 32, attention: {name: multi-head, n_heads: 1}}
        data: {name: text, path: text.txt}
        training: {steps: 1, batch_size: 1}
        sampler: [{name: structured, regex: "(yes|no), [a-z]{3,9}[.]"}]
        """,
        encoding="utf-8",
    )
    run = gptkit.train(str(tmp_path / "gpt.yaml"), str(tmp_path / "run"))
    for seed in range(3):
        assert re.fullmatch(r"(yes|no), [a-z]{3,9}[.]", run.generate("Well: ", seed=seed))
    assert run.generate("", sampler=[{"name": "structured", "regex": "0[.]5"}, "greedy"]) == "0.5"


@parametrize_checks(StructuredSpec)
def test_conformance(spec: Any, check: Any) -> None:
    check(spec)
