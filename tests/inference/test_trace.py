"""Trace of a generation: what each sampler left, compared with the samplers themselves."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import gptkit
from gptkit.components.tokenizer.byte import ByteTokenizer
from gptkit.core.errors import GptkitError
from gptkit.inference import generate
from gptkit.inference.samplers import sampler_chain
from gptkit.inference.trace_report import Trace, save_traces
from gptkit.kinds.sampler import SamplerContext
from tests.support.browser import browser_page

CHAIN = [{"name": "temperature", "value": 0.7}, {"name": "top-k", "k": 20}, {"name": "top-p", "p": 0.6}]
TOKENIZER = ByteTokenizer()


def build() -> gptkit.GPT:
    model = gptkit.GPT({"d_model": 16, "n_layers": 1, "attention": {"n_heads": 2}}, vocab_size=256, seed=1).eval()
    with torch.no_grad():
        model.embedding.table_VE.mul_(20)  # distributions that differ from uniform ones
    return model


def trace_of(prompt: str = "ab", n: int = 4, **options: object) -> tuple[gptkit.GPT, Trace, list[int]]:
    model = build()
    (result,) = generate(model, TOKENIZER, prompt, max_new_tokens=n, seed=5, **{"sampler": CHAIN, "trace": True, **options})  # type: ignore[arg-type]
    assert result.trace is not None
    return model, result.trace, [*result.prompt_ids, *result.ids]


def test_every_step_equals_the_sampler() -> None:
    model, trace, ids = trace_of()
    assert [token.id for token in trace] == ids[2:]
    samplers = [spec.build(SamplerContext(256, 1, TOKENIZER, ("s",))) for spec in sampler_chain(CHAIN)]
    for at, token in enumerate(trace, start=2):
        with torch.inference_mode():
            logits = model(torch.tensor([ids[:at]])).logits[:, -1]
        p = logits.softmax(-1)[0]
        assert token.probability == pytest.approx(float(p[token.id]), rel=1e-4)
        assert token.entropy == pytest.approx(float(-(p * p.log2()).sum()), rel=1e-4)
        assert token.rank == int((p > p[token.id]).sum())
        candidates = [candidate.id for candidate in token.candidates]
        assert set(p.topk(8).indices.tolist()) <= set(candidates)
        assert token.id in candidates
        assert candidates == sorted(candidates, key=lambda each: -float(p[each]))
        for step, sampler, fields in zip(token.steps, samplers, CHAIN, strict=True):
            before, logits = logits.softmax(-1)[0], sampler(logits, [ids[:at]])
            after = logits.softmax(-1)[0]
            assert {"name": step.name, **step.fields} == fields
            assert (step.n_before, step.n_after) == (int((before > 0).sum()), int((after > 0).sum()))
            assert step.removed == pytest.approx(float(before[after == 0].sum()), abs=1e-5)
            for candidate, was, became in zip(candidates, step.before, step.after, strict=True):
                assert (was or 0) == pytest.approx(float(before[candidate]), rel=1e-4, abs=1e-7)
                assert (became is None) == (after[candidate] == 0)
                assert (became or 0) == pytest.approx(float(after[candidate]), rel=1e-4, abs=1e-7)
        assert token.drawn_with == pytest.approx(float(after[token.id]), rel=1e-4)
        assert token.n_left == int((after > 0).sum())


def test_trace_does_not_change_the_text() -> None:
    model = build()
    plain = generate(model, TOKENIZER, ["ab", "xyz"], sampler=CHAIN, max_new_tokens=12, seed=5)
    traced = generate(model, TOKENIZER, ["ab", "xyz"], sampler=CHAIN, max_new_tokens=12, seed=5, trace=3)
    assert [result.ids for result in plain] == [result.ids for result in traced]
    assert [result.trace for result in plain] == [None, None]
    for result in traced:
        assert result.trace is not None
        assert [token.id for token in result.trace] == result.ids
        assert result.trace.prompt == tuple(TOKENIZER.decode([token]) for token in result.prompt_ids)


def test_candidates_are_those_of_the_model_and_those_left() -> None:
    model, trace, ids = trace_of(sampler=[{"name": "top-k", "k": 2}])
    for at, token in enumerate(trace, start=2):
        with torch.inference_mode():
            best = model(torch.tensor([ids[:at]])).logits[0, -1].topk(8).indices
        assert {candidate.id for candidate in token.candidates} == set(best.tolist())


def test_greedy_is_one_step_that_leaves_one_token() -> None:
    _, trace, _ = trace_of(sampler=[{"name": "top-k", "k": 5}, "greedy", {"name": "top-p", "p": 0.5}])
    for token in trace:
        assert [(step.name, step.n_before, step.n_after) for step in token.steps] == [("top-k", 256, 5), ("greedy", 5, 1)]
        assert (token.rank, token.drawn_with, token.n_left) == (0, 1.0, 1)


def test_without_samplers_the_model_is_drawn_from() -> None:
    _, trace, _ = trace_of(sampler=())
    for token in trace:
        assert token.steps == ()
        assert token.drawn_with == pytest.approx(token.probability, rel=1e-5)
        assert token.n_left == 256


def test_token_that_ends_the_text_is_the_last_one() -> None:
    model = build()
    (plain,) = generate(model, TOKENIZER, "ab", sampler=CHAIN, max_new_tokens=12, seed=5)
    stop = plain.ids[3]
    first = plain.ids.index(stop)
    (result,) = generate(model, TOKENIZER, "ab", sampler=CHAIN, max_new_tokens=12, seed=5, stop_ids=[stop], trace=True)
    assert result.trace is not None
    assert [token.id for token in result.trace] == [*result.ids, stop]
    assert len(result.ids) == first
    assert result.trace.finish == "stop"


def test_negative_count_is_refused() -> None:
    with pytest.raises(GptkitError, match="trace is -1"):
        trace_of(trace=-1)


def test_json_report(tmp_path: Path) -> None:
    _, trace, _ = trace_of()
    trace.save(tmp_path / "t.json")
    data = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert (data["gptkit"], data["version"]) == ("trace", 1)
    (text,) = data["texts"]
    assert text == json.loads(json.dumps(trace.as_dict()))
    step = text["tokens"][0]["steps"][1]
    assert (step["name"], step["fields"], step["n_after"]) == ("top-k", {"k": 20}, 20)
    assert math.isclose(text["tokens"][0]["drawn_with"], trace[0].drawn_with, rel_tol=1e-5)
    assert "top-k 20" in trace._repr_html_()


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1280, True), (390, False)])
def test_page_in_a_browser(tmp_path: Path, width: int, dark: bool) -> None:
    _, first, _ = trace_of("</script><img src=x onerror=alert(1)>\u202e\n")
    _, second, _ = trace_of("xy", n=6)
    path = save_traces(tmp_path / "t.html", [first, second], "a <b>")
    parser = _Tags()
    parser.feed(path.read_text(encoding="utf-8"))
    assert parser.tags.count("script") == 2
    with browser_page(width=width, dark=dark) as page:
        page.goto(path.as_uri())
        assert page.locator("h1").inner_text() == "a <b>"
        assert "</script><img src=x" in page.locator(".text").inner_text()
        assert page.evaluate("document.querySelectorAll('img').length") == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.select_option("select", "1")
        page.locator(".text .token:not(.prompt)").nth(2).click()
        assert page.locator("section h2").nth(1).inner_text().startswith("Token 3")
        heads = page.locator(".steps thead th").all_inner_texts()
        assert [head.split("\n")[0] for head in heads] == ["candidate", "model", "temperature", "top-k", "top-p"]
        assert f"20 → {second[2].n_left}" in heads[-1]
        assert page.locator(".steps tr.chosen").count() == 1
        page.keyboard.press("ArrowRight")
        assert page.locator("section h2").nth(1).inner_text().startswith("Token 4")
        page.get_by_label("next token").click()
        page.keyboard.press("Enter")
        assert page.locator("section h2").nth(1).inner_text().startswith("Token 6")
