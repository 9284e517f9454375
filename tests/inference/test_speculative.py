"""Speculative decoding generates the texts of plain decoding, with fewer forward passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

import gptkit
from gptkit.components.drafter.ngram import Ngram, NgramSpec
from gptkit.components.sampler.greedy import GreedySpec
from gptkit.components.tokenizer.byte import ByteTokenizer
from gptkit.core.errors import GptkitError, SpecError
from gptkit.engines.scheduled import Scheduled
from gptkit.inference import Generated, Request, RequestState, Scheduler, Session, generate, stream
from gptkit.inference.speculative import SpeculativeScheduler
from gptkit.kinds.drafter import Drafter, DrafterContext, DrafterSpec
from gptkit.model.gpt import GPT
from tests.support.chi_square import assert_drawn_from
from tests.support.fakes import Bytes, Recurrent

TOKENIZER = ByteTokenizer(["<|end|>"], end="<|end|>")
PROMPTS = ["a", "some longer one", "été", "x y" * 20]

MODELS: dict[str, dict[str, Any]] = {
    "rotary": {},
    "learned": {"position": "learned", "norm": "layer", "feedforward": "mlp"},
    "alibi": {"position": "alibi", "attention": {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2}},
    "window": {"layers": [{"repeat": 1, "attention": {"window": 5}}, {"repeat": 1, "position": "none"}]},
    "recurrent": {"layers": [{"attention": {"name": "gated-delta"}, "position": "none"}, {"attention": {"window": 5}}]},
    "latent": {"attention": {"name": "latent"}},
    "dynamic": {
        "position": {"name": "rotary", "scaling": {"name": "dynamic", "factor": 2.0, "original_context_length": 12}}
    },
    "experts": {"feedforward": {"name": "experts", "n_experts": 4, "expert": {"name": "mlp", "d_hidden": 16}}},
}

CHAINS: dict[str, list[Any]] = {
    "greedy": ["greedy"],
    "model": [],
    "penalties": [
        {"name": "repetition-penalty", "penalty": 1.3},
        {"name": "frequency-penalty", "penalty": 0.3},
        {"name": "no-repeat-ngram", "n": 3},
        {"name": "temperature", "value": 0.7},
    ],
    "dry": [{"name": "dry", "multiplier": 0.8}, {"name": "top-k", "k": 20}],
    "mirostat": [{"name": "temperature", "value": 0.8}, {"name": "mirostat", "tau": 2.0}],
    "mirostat-v2": [{"name": "mirostat-v2", "tau": 1.0, "eta": 0.5}],
    "draws": [{"name": "xtc", "probability": 0.5, "threshold": 0.05}, {"name": "min-length", "tokens": 6}],
    "llama.cpp": ["llama.cpp"],
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def model(name: str, context_length: int = 64, seed: int = 0) -> GPT:
    spec = {"d_model": 32, "n_layers": 2, "context_length": context_length}
    spec |= {"attention": {"name": "multi-head", "n_heads": 4}, **MODELS[name]}
    made = GPT(spec, vocab_size=TOKENIZER.vocab_size).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return made


class Spec(DrafterSpec):
    """Drafter for these tests: the given function, or the given texts with an error in every n-th proposal."""

    name: Literal["test"] = "test"
    function: Callable[[Sequence[int], int], Any] | None = None
    texts: tuple[tuple[int, ...], ...] = ()
    wrong_every: int = 0

    def build(self, context: DrafterContext) -> Drafter:
        return Scripted(self.texts, self.wrong_every) if self.function is None else Calls(self.function)


class Calls(Drafter):
    def __init__(self, function: Callable[[Sequence[int], int], Any]) -> None:
        self.function = function

    def propose(self, history: Sequence[int], limit: int) -> Sequence[int]:
        result: Sequence[int] = self.function(history, limit)
        return result


class Scripted(Drafter):
    """Proposes the continuation of the text that begins like the history, with errors at changing positions."""

    def __init__(self, texts: tuple[tuple[int, ...], ...], wrong_every: int) -> None:
        self.texts, self.wrong_every, self.n_calls = texts, wrong_every, 0

    def propose(self, history: Sequence[int], limit: int) -> Sequence[int]:
        self.n_calls += 1
        text = next(text for text in self.texts if text[: len(history)] == tuple(history))
        proposal = list(text[len(history) : len(history) + limit])
        if self.wrong_every and self.n_calls % self.wrong_every == 0 and proposal:
            at = self.n_calls % len(proposal)
            proposal[at] = (proposal[at] + 1) % 250
        return proposal


def scripted(plain: Sequence[Generated], wrong_every: int = 0, extra: Sequence[int] = ()) -> Spec:
    texts = tuple((*result.prompt_ids, *result.ids, *extra) for result in plain)
    return Spec(texts=texts, wrong_every=wrong_every)


NGRAM = {"name": "ngram", "min_n": 1}


def compare(plain: Sequence[Generated], drafted: Sequence[Generated]) -> None:
    for one, other in zip(plain, drafted, strict=True):
        assert other.ids == one.ids
        assert (other.text, other.finish) == (one.text, one.finish)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sampler", ["greedy", "penalties"])
def test_texts_are_those_of_plain_decoding(name: str, sampler: str) -> None:
    gpt = model(name, 24)
    options: dict[str, Any] = {"sampler": CHAINS[sampler], "max_new_tokens": 40, "stop_ids": (), "seed": 5}
    for prompts in (["some longer one"], PROMPTS):
        plain = generate(gpt, TOKENIZER, prompts, **options)
        for drafter in (NGRAM, scripted(plain), scripted(plain, wrong_every=2), Spec(function=lambda _, n: [7] * n)):
            compare(plain, generate(gpt, TOKENIZER, prompts, drafter=drafter, **options))


@pytest.mark.parametrize("chain", CHAINS)
def test_samplers_see_the_history_of_each_position(chain: str) -> None:
    gpt = model("alibi")
    options: dict[str, Any] = {"sampler": CHAINS[chain], "max_new_tokens": 45, "stop_ids": (), "seed": 3}
    plain = generate(gpt, TOKENIZER, PROMPTS[:2], **options)
    for drafter in (NGRAM, scripted(plain, wrong_every=3)):
        compare(plain, generate(gpt, TOKENIZER, PROMPTS[:2], drafter=drafter, **options))


def test_fewer_forward_passes() -> None:
    for name in ("rotary", "recurrent"):
        gpt = model(name)
        options: dict[str, Any] = {"sampler": "greedy", "max_new_tokens": 48, "stop_ids": ()}
        plain = generate(gpt, TOKENIZER, "abc", **options)
        calls = Counter[int]()
        gpt.register_forward_hook(lambda *given, calls=calls: calls.update([given[1][0].shape[1]]))
        (result,) = generate(gpt, TOKENIZER, "abc", drafter=scripted(plain), **options)
        assert result.timings.drafted_tokens == result.timings.accepted_tokens == 44
        assert calls == Counter([1, 2, 3, 16, 16, 15])  # two of the check, the prompt, then 16 tokens at once


def test_a_rejection_costs_a_recurrent_model_one_more_pass() -> None:
    gpt = model("recurrent")
    options: dict[str, Any] = {"sampler": "greedy", "max_new_tokens": 41, "stop_ids": ()}
    plain = generate(gpt, TOKENIZER, "abc", **options)
    passes = []
    gpt.register_forward_hook(lambda *given: passes.append(given[1][0].shape[1]))
    (result,) = generate(gpt, TOKENIZER, "abc", drafter=Spec(function=lambda _, n: [250] * n), **options)
    compare(plain, [result])
    assert len(passes) - 3 <= 40  # never more than one for each token


@pytest.mark.parametrize("overflow", ["slide", "stop"])
@pytest.mark.parametrize("name", ["rotary", "recurrent"])
def test_overflow(name: str, overflow: Literal["slide", "stop"]) -> None:
    gpt = model(name, 20)
    options: dict[str, Any] = {"max_new_tokens": 60, "stop_ids": (), "seed": 1, "overflow": overflow}
    plain = generate(gpt, TOKENIZER, PROMPTS[:3], **options)
    compare(plain, generate(gpt, TOKENIZER, PROMPTS[:3], drafter=scripted(plain, wrong_every=4), **options))


def test_ends_within_an_accepted_run() -> None:
    gpt = model("rotary")
    options: dict[str, Any] = {"sampler": "greedy", "seed": 1, "max_new_tokens": 40}
    (free,) = generate(gpt, TOKENIZER, "abc", stop_ids=(), **options)
    stop = TOKENIZER.decode(free.ids)[9:11]
    for ends in ({"stop_ids": [free.ids[11]]}, {"stop": stop, "stop_ids": ()}, {"max_new_tokens": 13, "stop_ids": ()}):
        plain = generate(gpt, TOKENIZER, "abc", **{**options, **ends})
        drafted = generate(gpt, TOKENIZER, "abc", drafter=scripted([free]), **{**options, **ends})
        compare(plain, drafted)
        assert 0 < len(drafted[0].ids) <= 13


def test_log_probabilities_and_trace_are_those_of_plain_decoding() -> None:
    gpt = model("rotary")
    options: dict[str, Any] = {"sampler": CHAINS["penalties"], "max_new_tokens": 30, "seed": 2, "stop_ids": ()}
    options |= {"top_log_probabilities": 3, "trace": 4}
    (plain,) = generate(gpt, TOKENIZER, "abc", **options)
    (drafted,) = generate(gpt, TOKENIZER, "abc", drafter=scripted([plain], wrong_every=3), **options)
    assert drafted.log_probabilities == pytest.approx(plain.log_probabilities, abs=1e-4)
    assert plain.top_log_probabilities is not None
    assert drafted.top_log_probabilities is not None
    assert [[token for token, _ in top] for top in drafted.top_log_probabilities] == [
        [token for token, _ in top] for top in plain.top_log_probabilities
    ]
    assert plain.trace is not None
    assert drafted.trace is not None
    assert [token.id for token in drafted.trace.tokens] == [token.id for token in plain.trace.tokens] == plain.ids
    assert [token.drawn_with for token in drafted.trace.tokens] == pytest.approx(
        [token.drawn_with for token in plain.trace.tokens], abs=1e-4
    )


@pytest.mark.parametrize("name", ["rotary", "recurrent", "window"])
def test_requests_arrive_while_others_run(name: str) -> None:
    gpt = model(name, 32)

    def texts(scheduler: Scheduler) -> list[list[int]]:
        states: list[RequestState] = []
        for index in range(6):
            prompt = TOKENIZER.encode("abcab" * (1 + index % 3))
            states.append(scheduler.submit(Request(prompt, max_new_tokens=9 * index + 1, seed=4, stream=index)))
            for _ in range(3):
                scheduler.step()
        scheduler.cancel(states[4])
        while not scheduler.idle:
            scheduler.step()
        return [state.history for state in states if state is not states[4]]

    plain = texts(Scheduler(gpt, TOKENIZER, max_batch=3))
    assert texts(SpeculativeScheduler(gpt, TOKENIZER, NgramSpec(min_n=1), max_batch=3)) == plain


def test_engine_reports_all_tokens_of_a_step() -> None:
    gpt = model("rotary")
    options: dict[str, Any] = {"sampler": "greedy", "max_new_tokens": 30, "stop_ids": (), "log_probabilities": True}
    (plain,) = generate(gpt, TOKENIZER, "abc", **options)
    engine = Scheduled(gpt, TOKENIZER, drafter=scripted([plain]))
    ids = TOKENIZER.encode("abc")
    engine.submit(Request(ids, sampler=(GreedySpec(),), max_new_tokens=30, log_probabilities=0))
    steps = []
    while not engine.idle:
        steps += engine.step()
    assert [token for step in steps for token in step.ids] == plain.ids
    assert "".join(step.text for step in steps) == plain.text
    assert [score.log_probability for step in steps for score in step.scores] == pytest.approx(
        plain.log_probabilities, abs=1e-4
    )
    assert [len(step.ids) for step in steps] == [1, 16, 13]
    assert steps[-1].finish == "length"


@pytest.mark.parametrize("name", ["rotary", "recurrent", "window", "dynamic"])
@pytest.mark.parametrize("overflow", ["slide", "stop"])
def test_sessions_generate_the_texts_of_plain_decoding(name: str, overflow: Literal["slide", "stop"]) -> None:
    gpt = model(name, 40)
    options: dict[str, Any] = {"sampler": CHAINS["penalties"], "seed": 4, "overflow": overflow}

    def texts(session: Session) -> tuple[list[list[int]], list[int], int]:
        ids, turns, cached, n_accepted = TOKENIZER.encode("ab"), [], [], 0
        for turn, n_tokens in enumerate((9, 14, 1, 30)):
            if len(ids) > 40:
                break
            reply = session.stream(ids, max_new_tokens=n_tokens, turn=turn, **options)
            assert "".join(reply) == reply.text
            turns.append(reply.ids)
            n_accepted += reply.n_accepted
            cached.append(session.n_cached)
            ids = [*ids, *reply.ids, *TOKENIZER.encode("ab")]
        return turns, cached, n_accepted

    plain, n_cached, _ = texts(Session(gpt, TOKENIZER))
    whole = TOKENIZER.encode("ab")
    for ids in plain:
        whole += [*ids, *TOKENIZER.encode("ab")]
    for drafter in (NGRAM, Spec(texts=(tuple(whole),), wrong_every=3)):
        drafted, n_cached_drafted, n_accepted = texts(Session(gpt, TOKENIZER, drafter))
        assert drafted == plain
        if name != "recurrent":  # which may have returned to a mark
            assert n_cached_drafted == n_cached
    assert n_accepted > 5


class FixedCache:
    """Cache of `Fixed`: the last token of every row."""

    def __init__(self, batch: int, capacity: int) -> None:
        self.batch, self.capacity, self.length = batch, capacity, 0

    def reorder(self, rows_B: Tensor) -> None:
        self.batch = len(rows_B)

    def join(self, other: FixedCache, capacity: int) -> None:
        raise NotImplementedError

    def can_truncate(self, length: int) -> bool:
        return True

    def truncate(self, length: int) -> None:
        self.length = length

    def mark(self) -> None:
        pass

    def steady(self, n_tokens: int) -> int:
        return n_tokens


class Fixed(nn.Module):
    """P(next | last) is a fixed table: logits (V, V)."""

    def __init__(self, logits_VV: Tensor) -> None:
        super().__init__()
        self.logits_VV = logits_VV
        self.vocab_size, self.context_length, self.device = len(logits_VV), 100_000, torch.device("cpu")

    def new_cache(self, batch: int, capacity: int | None = None, left_padding_B: Tensor | None = None) -> FixedCache:
        return FixedCache(batch, capacity or self.context_length)

    def forward(self, ids_BT: Tensor, *, cache: FixedCache, last_only: bool = False) -> Any:
        cache.length += ids_BT.shape[1]
        logits_BTV = self.logits_VV[ids_BT]
        return SimpleNamespace(logits=logits_BTV[:, -1:] if last_only else logits_BTV)


@pytest.mark.slow
@pytest.mark.parametrize("quality", ["good", "bad"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_distribution_is_that_of_the_chain(quality: str, temperature: float) -> None:
    """Chi-square of 20,000 draws: the frequencies of each token after each other one are those of the chain."""
    n_tokens, size = 20_000, 6
    logits_VV = torch.randn(size, size, generator=torch.Generator().manual_seed(1)) * 0.8
    p_VV = (logits_VV / temperature).softmax(-1)

    def propose(history: Sequence[int], limit: int) -> list[int]:
        proposal, last = [], history[-1]
        for _ in range(min(limit, 3)):
            row_V = p_VV[last]
            last = int(row_V.argmax() if quality == "good" else row_V.argmin())
            proposal.append(last)
        return proposal

    (result,) = generate(
        Fixed(logits_VV),
        Bytes(),
        [[0]],
        sampler={"name": "temperature", "value": temperature},
        max_new_tokens=n_tokens,
        stop_ids=(),
        seed=7,
        drafter=Spec(function=propose),
    )
    assert_drawn_from(p_VV, [[0, *result.ids]], n_tokens)
    rate = result.timings.accepted_tokens / result.timings.drafted_tokens
    assert rate > 0.15 if quality == "good" else rate < 0.1


def test_streams_arrive_whole() -> None:
    gpt = model("rotary")
    options: dict[str, Any] = {"sampler": "greedy", "max_new_tokens": 30, "stop_ids": ()}
    (plain,) = generate(gpt, TOKENIZER, "abc", **options)
    texts = stream(gpt, TOKENIZER, "abc", drafter=scripted([plain]), **options)
    assert "".join(texts) == plain.text
    assert texts.result.timings.accepted_tokens > 20


def raises(history: Sequence[int], limit: int) -> list[int]:
    raise KeyError("lost")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda _, n: [1] * (n + 1), "drafter 'test' proposed 16 tokens, at most 15 were requested"),
        (lambda _, n: [257], "drafter 'test' proposed token 257, but the vocabulary has 257 tokens"),
        (lambda _, n: [-1], "drafter 'test' proposed token -1"),
        (lambda _, n: ["a"], "drafter 'test' raised AttributeError"),
        (lambda _, n: None, "drafter 'test' raised TypeError"),
        (raises, "drafter 'test' raised KeyError: 'lost'"),
    ],
)
def test_errors_of_a_drafter_name_it(function: Any, message: str) -> None:
    with pytest.raises(GptkitError, match=message) as caught:
        generate(model("rotary"), TOKENIZER, "abc", max_new_tokens=30, drafter=Spec(function=function))
    assert caught.value.hint is not None
    assert "drafter=None" in caught.value.hint


def test_unknown_drafters_and_fields() -> None:
    with pytest.raises(SpecError, match="ngram"):
        generate(model("rotary"), TOKENIZER, "abc", drafter="n-gram")
    with pytest.raises(SpecError, match="min_n is 5, more than max_n"):
        generate(model("rotary"), TOKENIZER, "abc", drafter={"name": "ngram", "min_n": 5})


def test_caches_that_cannot_discard_tokens_are_refused() -> None:
    fake = Recurrent(vocab_size=257)
    with pytest.raises(GptkitError, match="requires a cache with the method 'mark'"):
        generate(fake, TOKENIZER, "abc", drafter="ngram")
    assert not fake.calls


def test_ngram_continues_the_latest_occurrence_of_the_longest_match() -> None:
    drafter = Ngram(k=4, min_n=1, max_n=3, adaptive=False)
    assert drafter.propose([1, 2, 3], 15) == []
    assert drafter.propose([1, 2, 3, 9, 1, 2], 15) == [3, 9, 1, 2]
    assert drafter.propose([1, 2, 3, 9, 1, 2, 4, 2, 8, 1, 2], 15) == [4, 2, 8, 1]
    assert drafter.propose([1, 2, 3, 9, 1, 2, 4, 2, 8, 1, 2, 3], 2) == [9, 1]
    periodic = Ngram(k=5, min_n=1, max_n=3, adaptive=False)
    assert periodic.propose([5, 6, 5, 6], 15) == [5, 6, 5, 6, 5]


def test_ngram_adapts_to_the_acceptance() -> None:
    drafter = Ngram(k=8, min_n=1, max_n=1, adaptive=True)
    history = [5, 5]
    lengths = []
    for n_accepted in (8, 3, 0, 1, 2, 4):
        proposal = drafter.propose(history, 15)
        lengths.append(len(proposal))
        drafter.verified(len(proposal), min(n_accepted, len(proposal)))
        history.append(5)
    assert lengths == [8, 8, 4, 1, 2, 4]


def save(directory: Path, gpt: GPT) -> Path:
    return gptkit.save_run(directory, gpt, TOKENIZER)


@pytest.mark.parametrize("name", ["rotary", "recurrent"])
@pytest.mark.parametrize("sampler", ["greedy", "model"])
def test_draft_run(tmp_path: Path, name: str, sampler: str) -> None:
    gpt = model("rotary", 32)
    draft = model(name, 24, seed=0)  # for "rotary" equal weights and a shorter context
    save(tmp_path / "draft", draft)
    drafter = {"name": "draft-run", "run": str(tmp_path / "draft"), "min_probability": 0.0}
    options: dict[str, Any] = {"sampler": CHAINS[sampler], "max_new_tokens": 50, "stop_ids": (), "seed": 5}
    plain = generate(gpt, TOKENIZER, PROMPTS[:2], **options)
    drafted = generate(gpt, TOKENIZER, PROMPTS[:2], drafter=drafter, **options)
    compare(plain, drafted)
    assert drafted[0].timings.drafted_tokens > 20
    if (name, sampler) == ("rotary", "greedy"):
        assert drafted[0].timings.accepted_tokens > 20


def test_draft_run_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    other = ByteTokenizer(["<|eot|>"], end="<|eot|>")
    gptkit.save_run(tmp_path / "draft", model("rotary"), other)
    with pytest.raises(GptkitError, match=r"the tokenizer of the draft run .* differs"):
        generate(model("rotary"), TOKENIZER, "abc", drafter={"name": "draft-run", "run": str(tmp_path / "draft")})
    with pytest.raises(GptkitError, match="none"):
        generate(model("rotary"), TOKENIZER, "abc", drafter={"name": "draft-run", "run": str(tmp_path / "none")})
