"""Speculative decoding by the prediction modules of the model's own head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gptkit
from gptkit.components.drafter.mtp import MtpSpec
from gptkit.core.errors import GptkitError, StateError
from gptkit.inference import Generated, Request, Scheduler, Session, generate
from gptkit.inference.compiled.decoding import CompiledDecoding
from gptkit.inference.predicting import CachedText, PredictionReader
from gptkit.inference.speculative import SpeculativeScheduler
from gptkit.kinds.drafter import Drafter, DrafterContext, DrafterSpec
from gptkit.model.gpt import GPT
from gptkit.nn.forward import Forward
from tests.support.chi_square import assert_drawn_from
from tests.support.decoded_models import GREEDY, SCHEDULED, TOKENIZER, decoded_model
from tests.support.fakes import Bytes
from tests.support.traced_steps import interpret_steps

PROMPTS = ["a", "some longer one", "été", "x y" * 20]
SAMPLED = [{"name": "repetition-penalty", "penalty": 1.3}, {"name": "temperature", "value": 0.7}]
ALL = {"name": "mtp", "k": 6, "min_probability": 0.0}
"""Proposals of 6 tokens, however unlikely they are."""


def build(name: str = "rotary", context_length: int = 64, depth: int = 1) -> GPT:
    return decoded_model(name, context_length, head={"name": "multi-token", "depth": depth})


def compare(plain: Sequence[Generated], drafted: Sequence[Generated]) -> None:
    for one, other in zip(plain, drafted, strict=True):
        assert other.ids == one.ids
        assert (other.text, other.finish) == (one.text, one.finish)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("name", SCHEDULED)
def test_texts_are_those_of_plain_decoding(name: str, depth: int) -> None:
    gpt = build(name, 24, depth)  # the texts exceed the context, so its first half is discarded
    n_drafted = 0
    for sampler, prompts in (("greedy", ["abc"]), (SAMPLED, PROMPTS)):
        options: dict[str, Any] = {"sampler": sampler, "max_new_tokens": 40, "stop_ids": (), "seed": 5}
        plain = generate(gpt, TOKENIZER, prompts, **options)
        drafted = generate(gpt, TOKENIZER, prompts, drafter=ALL, **options)
        compare(plain, drafted)
        n_drafted += drafted[0].timings.drafted_tokens
    assert n_drafted > 0


@pytest.mark.parametrize("name", ["rotary", "recurrent"])
def test_requests_that_arrive_while_others_run(name: str) -> None:
    gpt = build(name)

    def texts(scheduler: Scheduler) -> list[list[int]]:
        prompts = ["x y" * 12, "b", "x y" * 12 + "some longer one", "c d"]
        states = []
        for prompt in prompts:  # read in parts; the third one reuses the first
            ids = TOKENIZER.encode(prompt)
            states.append(scheduler.submit(Request(ids, sampler=GREEDY, max_new_tokens=20)))
            for _ in range(10):
                scheduler.step()
        while not scheduler.idle:
            scheduler.step()
        assert states[2].n_cached > 0
        return [state.history for state in states]

    parts: dict[str, Any] = {"max_batch": 3, "prefill_chunk": 7, "prefill_chunk_busy": 4, "prefix_bytes": 2**24}
    scheduler = SpeculativeScheduler(gpt, TOKENIZER, MtpSpec(k=4, min_probability=0), **parts)
    assert texts(scheduler) == texts(Scheduler(gpt, TOKENIZER, **parts))
    assert scheduler.n_drafted > 20


@pytest.mark.parametrize("name", ["rotary", "recurrent", "window", "dynamic"])
def test_sessions_generate_the_texts_of_plain_decoding(name: str) -> None:
    gpt = build(name, 40)

    def texts(session: Session) -> list[list[int]]:
        ids, turns = TOKENIZER.encode("ab"), []
        for turn, n_tokens in enumerate((9, 14, 1, 30)):
            reply = session.stream(ids, max_new_tokens=n_tokens, turn=turn, sampler=SAMPLED, seed=4)
            assert "".join(reply) == reply.text
            turns.append(reply.ids)
            ids = [*ids, *reply.ids, *TOKENIZER.encode("ab")]
        return turns

    assert texts(Session(gpt, TOKENIZER, ALL)) == texts(Session(gpt, TOKENIZER))


def chained(gpt: GPT, text: list[int], n_cached: int) -> Tensor:
    """The logits after a text, of whose tokens the model has processed the first ones; computed without states."""
    head: Any = gpt.head
    x_1TE = inputs_1TE = gpt.hidden(torch.tensor([text[:n_cached]]))[0]
    for link in range(1, len(text) - n_cached + 1):
        k = min(link, head.depth)
        # After the last module, its result stands for the vector of the next token.
        inputs_1TE = x_1TE if link <= head.depth else torch.cat((inputs_1TE, x_1TE[:, -1:]), dim=1)
        n_tokens = inputs_1TE.shape[1]
        next_1TE = gpt.embedding(torch.tensor([text[k : k + n_tokens]]), Forward(torch.tensor([text[k : k + n_tokens]])))
        x_1TE = head.modules_after[k - 1](inputs_1TE, next_1TE, Forward(torch.tensor([text[:n_tokens]])))
    return head.head(head.modules_after[k - 1].output_norm(x_1TE), Forward(torch.tensor([text])))[0, -1]


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("name", ["rotary", "window", "latent"])
@torch.no_grad()
def test_predictions_are_those_of_the_chain_without_states(name: str, depth: int) -> None:
    gpt = build(name, depth=depth)
    reader = PredictionReader(gpt.head.predictions, gpt, gpt.vocab_size)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(3)
    text = torch.randint(250, (60,), generator=generator).tolist()
    n_cached = 1
    # The numbers of cached, pending and proposed tokens; proposals are rejected.
    for n_new, n_pending, n_proposed in ((0, 1, 2), (1, 1, 4), (3, 1, 1), (1, 2, 3), (8, 4, 2), (2, 3, 5), (15, 1, 6)):
        n_cached += n_new
        history = text[: n_cached + n_pending]
        reader.begin(history, CachedText(0, gpt.hidden(torch.tensor([history[:n_cached]]))[0][0]))
        for n in range(n_proposed):
            continued = [*history, *[(token + 1) % 250 for token in text[len(history) : len(history) + n]]]
            torch.testing.assert_close(reader(continued), chained(gpt, continued, n_cached), atol=3e-4, rtol=3e-4)
    with pytest.raises(ValueError, match="does not continue"):
        reader(history[:n_cached])


@pytest.mark.parametrize("static", [False, True])
@torch.no_grad()
def test_caches_keep_the_vectors_of_the_head(static: bool) -> None:
    gpt = build()
    ids_BT = torch.randint(250, (2, 12), generator=torch.Generator().manual_seed(0))
    padding_B = torch.tensor([3, 0])
    expected_BTE = gpt.hidden(ids_BT, left_padding_B=padding_B)[0]
    cache = gpt.new_cache(2, 20, padding_B, keep_hidden=True, static=static)
    for first, last in ((0, 7), (7, 11), (11, 12)):
        gpt(ids_BT[:, first:last], cache=cache, last_only=True)
    for row, padding in enumerate(padding_B.tolist()):
        torch.testing.assert_close(cache.hidden(row), expected_BTE[row, padding:], atol=3e-5, rtol=3e-5)
    cache.truncate(9)
    cache.reorder([1, 0])
    torch.testing.assert_close(cache.hidden(1), expected_BTE[0, 3:9], atol=3e-5, rtol=3e-5)
    if not static:
        torch.testing.assert_close(cache.extract(1).hidden(0), expected_BTE[0, 3:9], atol=3e-5, rtol=3e-5)
    with pytest.raises(StateError, match="keeps no hidden vectors"):
        gpt.new_cache(1).hidden(0)


class Skewed(DrafterSpec):
    """Drafter for these tests: the least likely token of the first prediction module."""

    def build(self, context: DrafterContext) -> Drafter:
        return SkewedDrafter(context)


class SkewedDrafter(Drafter):
    def __init__(self, context: DrafterContext) -> None:
        self.reader = context.open_predictions()

    def propose(self, history: Sequence[int], limit: int) -> Sequence[int]:
        return [int(self.reader(history).argmin())]


@pytest.mark.slow
@pytest.mark.parametrize("drafter", [{"name": "mtp", "k": 2, "min_probability": 0}, Skewed(name="skewed")])
def test_distribution_is_that_of_the_model(drafter: Any) -> None:
    """Chi-square of 20,000 draws: the frequencies of each token after each other one are those of the model."""
    size, n_texts, n_tokens = 6, 80, 250
    spec = {"d_model": 8, "n_layers": 1, "context_length": 256, "block": "pre-norm", "position": "none"}
    # Layers that return their input: the distribution of a token depends on the previous one only.
    spec |= {"attention": {"name": "multi-head", "n_heads": 1}, "feedforward": {"name": "mlp", "d_hidden": 8}}
    gpt = GPT({**spec, "head": "multi-token"}, vocab_size=size).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in gpt.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
            if name.startswith("blocks.") and parameter.ndim == 2:
                parameter.zero_()
        p_VV = gpt(torch.arange(size)[:, None]).logits[:, 0].softmax(-1)
    options: dict[str, Any] = {"max_new_tokens": n_tokens, "stop_ids": (), "seed": 7}
    results = generate(gpt, Bytes(), [[index % size] for index in range(n_texts)], drafter=drafter, **options)
    assert_drawn_from(p_VV, [[*result.prompt_ids, *result.ids] for result in results], 20_000)
    assert results[0].timings.drafted_tokens > 1000
    assert 0 < results[0].timings.accepted_tokens < results[0].timings.drafted_tokens


@pytest.mark.parametrize("depth", [1, 2])
def test_proposals_of_a_trained_model_are_accepted(depth: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    gpt = build(depth=depth).train()
    ids = TOKENIZER.encode("the quick brown fox jumps over the lazy dog. " * 3)
    optimizer = torch.optim.AdamW(gpt.parameters(), lr=3e-3)
    for step in range(80):
        rows_BT = torch.tensor([ids[first : first + 41] for first in range(step % 9, 45, 9)])
        gpt(rows_BT[:, :-1], rows_BT[:, 1:]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    run = gptkit.load(gptkit.save_run(tmp_path / "run", gpt.eval(), TOKENIZER))
    options: dict[str, Any] = {"sampler": "greedy", "max_new_tokens": 40, "stop_ids": ()}
    plain = generate(run.model, run.tokenizer, "the quick", **options)
    passes = []
    run.model.register_forward_hook(lambda *given: passes.append(given[1][0].shape[1]))
    drafted = generate(run.model, run.tokenizer, "the quick", drafter="mtp", **options)
    compare(plain, drafted)
    timings = drafted[0].timings
    assert timings.accepted_tokens > 0.6 * timings.drafted_tokens > 0
    assert len(passes) < 28  # two of them check the cache


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rotary", "recurrent", "window"])
def test_compiled_steps_keep_the_vectors_of_the_head(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpt, calls = build(name), interpret_steps(monkeypatch)
    compiled = CompiledDecoding(gpt)
    ids_BT = torch.randint(250, (2, 14), generator=torch.Generator().manual_seed(0))
    padding_B = torch.tensor([2, 0])
    caches = [each.new_cache(2, 30, padding_B, keep_hidden=True) for each in (gpt, compiled)]
    with torch.inference_mode():
        for first, last in ((0, 5), (5, 6), (6, 10), (10, 14)):
            outputs = [
                each(ids_BT[:, first:last], cache=cache, last_only=last < 7).logits
                for each, cache in zip((gpt, compiled), caches, strict=True)
            ]
            torch.testing.assert_close(*outputs, atol=1e-4, rtol=1e-4)
    assert {(form.width, form.keeps_hidden): n for form, n in calls.items()} == {(1, True): 1, (4, True): 2}
    for row in range(2):
        torch.testing.assert_close(*(cache.hidden(row) for cache in caches), atol=1e-4, rtol=1e-4)
    options: dict[str, Any] = {"sampler": "greedy", "max_new_tokens": 30, "stop_ids": ()}
    plain = generate(gpt, TOKENIZER, "abc", **options)
    compare(plain, generate(gpt, TOKENIZER, "abc", drafter=ALL, compile=True, **options))
    assert any(form.keeps_hidden and not form.many for form in calls)
    assert all(form.keeps_hidden for form in calls)


def test_models_without_prediction_modules_are_refused() -> None:
    for make in (generate, Session):
        with pytest.raises(GptkitError, match="drafter 'mtp' requires a model whose head has prediction modules") as caught:
            make(decoded_model("rotary", 64), TOKENIZER, *(["abc"] if make is generate else []), drafter="mtp")
        assert "multi-token" in str(caught.value.hint)
