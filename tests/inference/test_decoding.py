"""Decodings: searches for continuations.

Shapes: B batch, R rows, T tokens, E width, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from gptkit.components.decoding.beam import BeamSpec
from gptkit.components.decoding.best_of import BestOfSpec
from gptkit.components.decoding.contrastive import ContrastiveSpec
from gptkit.components.decoding.diverse_beam import DiverseBeamSpec
from gptkit.core.errors import GptkitError, SpecError
from gptkit.inference import beam_search, generate, stream
from gptkit.kinds.decoding import Continuation
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from tests.support.fakes import Bytes, Few, Recurrent


class Tokens(Bytes):
    """Tokenizer of a small vocabulary without an end token."""

    vocab_size = 40  # type: ignore[assignment]
    end_id = None  # type: ignore[assignment]


class External(nn.Module):
    """A model of transformers as gptkit's generation uses one; every forward pass reads the whole text."""

    class Cache:
        def __init__(self, batch: int, capacity: int, left_padding_B: Tensor | None) -> None:
            assert left_padding_B is None
            self.capacity, self.ids_BT = capacity, torch.zeros(batch, 0, dtype=torch.long)

        @property
        def length(self) -> int:
            return self.ids_BT.shape[1]

        def reorder(self, rows_B: Tensor) -> None:
            self.ids_BT = self.ids_BT[rows_B]

    def __init__(self, model: GPT2LMHeadModel) -> None:
        super().__init__()
        self.model, self.context_length, self.vocab_size = model, 64, 40
        self.device = torch.device("cpu")

    def new_cache(self, batch: int, capacity: int | None = None, left_padding_B: Tensor | None = None) -> Any:
        return self.Cache(batch, capacity or 64, left_padding_B)

    def forward(self, ids_BT: Tensor, *, cache: Any, last_only: bool = False) -> Any:
        cache.ids_BT = torch.cat((cache.ids_BT, ids_BT), dim=1)
        return SimpleNamespace(logits=self.model(cache.ids_BT).logits[:, -1:])


def external_model(seed: int) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=40, n_positions=64, n_embd=16, n_layer=2, n_head=2, initializer_range=0.6)
    return GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize(
    ("width", "length_penalty", "early_stopping"),
    [(1, 1.0, "likely"), (3, 1.0, "likely"), (4, 0.0, "likely"), (3, 2.0, "always"), (4, 1.0, "always"), (3, 1.5, "never")],
)
def test_beam_search_equals_transformers(width: int, length_penalty: float, early_stopping: str) -> None:
    n_ended = 0
    for seed in range(6):
        model, prompt = external_model(seed), [3, 14, 15, 9]
        expected = model.generate(
            torch.tensor([prompt]),
            num_beams=width,
            num_return_sequences=width,
            length_penalty=length_penalty,
            early_stopping={"likely": False, "always": True, "never": "never"}[early_stopping],
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=[7, 8],
            pad_token_id=7,
            return_dict_in_generate=True,
            output_scores=True,
        )
        spec = BeamSpec(width=width, length_penalty=length_penalty, early_stopping=early_stopping)  # type: ignore[arg-type]
        (result,) = generate(External(model), Tokens(), [prompt], decoding=spec, max_new_tokens=12, stop_ids=(7, 8))
        texts = [
            list(itertools.takewhile(lambda token: token not in (7, 8), row[4:])) for row in expected.sequences.tolist()
        ]
        assert [each.ids for each in result.alternatives] == texts, seed
        assert result.ids == texts[0]
        if width > 1:
            scores = expected.sequences_scores.tolist()
            assert [each.score for each in result.alternatives] == pytest.approx(scores, abs=1e-4)
        n_ended += sum(each.finish == "stop" for each in result.alternatives)
    assert n_ended >= 3


def plain_diverse(
    model: Recurrent, prompt: list[int], groups: int, width: int, diversity: float, longest: int
) -> list[tuple[float, list[int]]]:
    """Diverse beam search without a cache, all groups in one loop over the steps, ending at the longest length only."""
    beams: list[list[tuple[float, list[int]]]] = [[(0.0, [])] for _ in range(groups)]
    for _ in range(longest):
        used: Counter[int] = Counter()
        for group in range(groups):
            options = []
            for total, ids in beams[group]:
                with torch.no_grad():
                    log_p = model(torch.tensor([[*prompt, *ids]])).logits[0, -1].log_softmax(-1).tolist()
                options += [(total + value - diversity * used[token], [*ids, token]) for token, value in enumerate(log_p)]
            beams[group] = sorted(options, key=lambda each: -each[0])[:width]
            used.update(ids[-1] for _, ids in beams[group])
    return sorted(((total / longest, ids) for group in beams for total, ids in group), key=lambda each: -each[0])


@pytest.mark.parametrize(("groups", "width", "diversity"), [(1, 3, 0.7), (3, 1, 0.0), (3, 1, 1.5), (2, 2, 0.8)])
def test_diverse_beam_search_follows_its_definition(groups: int, width: int, diversity: float) -> None:
    for seed in range(5):
        model = Recurrent(vocab_size=4, context_length=64, scale=0.4, seed=seed)
        spec = DiverseBeamSpec(groups=groups, width=width, diversity=diversity, length_penalty=1.0, early_stopping="likely")
        (result,) = generate(model, Few(), [[0, 1]], decoding=spec, max_new_tokens=8, stop_ids=())
        expected = plain_diverse(model, [0, 1], groups, width, diversity, 8)
        assert [each.score for each in result.alternatives] == pytest.approx([score for score, _ in expected], abs=1e-4)
        assert [each.ids for each in result.alternatives] == [ids for _, ids in expected]


def test_one_group_is_beam_search_and_diversity_makes_first_tokens_differ() -> None:
    for seed in range(5):
        model, fields = Recurrent(vocab_size=4, context_length=64, scale=0.4, seed=seed), {"max_new_tokens": 10}
        one = generate(model, Few(), "ab", decoding={"name": "diverse-beam", "groups": 1, "width": 3}, **fields)[0]
        beams = beam_search(model, Few(), "ab", width=3, **fields)
        assert [each.ids for each in one.alternatives] == [beam.ids for beam in beams]
        decoding = {"name": "diverse-beam", "groups": 3, "width": 1, "diversity": 100}
        apart = generate(model, Few(), "ab", decoding=decoding, stop_ids=(), **fields)[0]
        assert len({each.ids[0] for each in apart.alternatives}) == 3


@pytest.fixture(scope="module")
def small() -> GPT:
    torch.manual_seed(0)
    data = {"d_model": 16, "n_layers": 2, "context_length": 32, "vocab_size": 257}
    model = GPT(ModelSpec.model_validate(data), 257, device="cpu")
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.7)
    return model.eval()


def plain_contrastive(model: GPT, ids: list[int], k: int, alpha: float, n: int, stop: int) -> list[int]:
    """Contrastive search without a cache: the hidden states of every candidate's whole text."""
    start = len(ids)
    with torch.no_grad():
        for _ in range(n):
            p_V = model(torch.tensor([ids])).logits[0, -1].softmax(-1)
            candidates = p_V.topk(k).indices.tolist()
            scores = []
            for token in candidates:
                hidden_TE = torch.nn.functional.normalize(model.hidden(torch.tensor([[*ids, token]]))[0][0], dim=-1)
                scores.append((1 - alpha) * float(p_V[token]) - alpha * float((hidden_TE[:-1] @ hidden_TE[-1]).max()))
            best = candidates[max(range(k), key=scores.__getitem__)]
            if best == stop:
                break
            ids = [*ids, best]
    return ids[start:]


@pytest.mark.parametrize(("k", "alpha"), [(1, 0.6), (4, 0.0), (4, 0.6), (8, 0.9), (3, 1.0)])
def test_contrastive_search_follows_its_definition(small: GPT, k: int, alpha: float) -> None:
    texts = set()
    for prompt in ("start", "ab", "xyz"):
        expected = plain_contrastive(small, list(prompt.encode()), k, alpha, 15, stop=60)
        spec = ContrastiveSpec(k=k, alpha=alpha)
        (result,) = generate(small, Bytes(), prompt, decoding=spec, max_new_tokens=15, stop_ids=(60,))
        assert result.ids == expected
        greedy = generate(small, Bytes(), prompt, sampler="greedy", max_new_tokens=15, stop_ids=(60,))[0].ids
        assert (result.ids == greedy) or (k > 1 and alpha > 0)
        texts.add(tuple(result.ids))
    assert len(texts) == 3


def test_contrastive_search_needs_hidden_states() -> None:
    with pytest.raises(GptkitError, match="decoding 'contrastive' needs the model's hidden states, which Recurrent"):
        generate(Recurrent(), Bytes(), "a", decoding="contrastive", max_new_tokens=3)


def test_search_continues_beyond_the_context(small: GPT) -> None:
    for decoding in ("contrastive", "beam", "best-of"):
        (result,) = generate(small, Bytes(), "start", decoding=decoding, max_new_tokens=50, stop_ids=(), seed=1)
        assert len(result.ids) == 50
        (stopped,) = generate(
            small, Bytes(), "start", decoding=decoding, max_new_tokens=50, stop_ids=(), seed=1, overflow="stop"
        )
        assert (len(stopped.ids), stopped.finish) == (28, "length")


def test_best_of_ranks_independent_samples_by_likelihood() -> None:
    model, tokenizer = Recurrent(context_length=64, scale=0.4), Bytes()
    options: dict[str, Any] = {"max_new_tokens": 12, "seed": 3, "stop_ids": range(200, 256)}
    (result,) = generate(model, tokenizer, "start", decoding=BestOfSpec(n=6, rank="likelihood"), **options)
    assert len(result.alternatives) == 6
    from gptkit.inference import score

    for each in result.alternatives:
        if each.finish == "length":
            log_p = score(model, torch.tensor([*b"start", *each.ids]))[4:]
            assert each.score == pytest.approx(float(log_p.mean()), abs=1e-4)
    assert len({tuple(each.ids) for each in result.alternatives}) > 3
    again = generate(model, tokenizer, ["other", "start"], decoding=BestOfSpec(n=6, rank="likelihood"), **options)
    assert again[0].alternatives != result.alternatives


def test_first_sample_of_one_equals_sampling_without_a_search() -> None:
    """The decoding `sample`, hosted as a search, draws what the scheduler draws."""
    from gptkit.components.decoding.modules.best_of import Sampling
    from gptkit.inference.request import Request
    from gptkit.inference.search import PromptSearch
    from gptkit.kinds.decoding import DecodingContext, DecodingSpec

    class Hosted(DecodingSpec):
        name: str = "hosted"

        def build(self, context: DecodingContext) -> Sampling:
            return Sampling(context, [context.stream])

    model, tokenizer = Recurrent(context_length=16, scale=0.4), Bytes()
    sampler: list[Any] = [{"name": "temperature", "value": 1.3}, {"name": "xtc", "probability": 0.0}, "top-p"]
    (plain,) = generate(model, tokenizer, "start", sampler=sampler, max_new_tokens=40, seed=9)
    from gptkit.inference.samplers import sampler_chain

    request = Request(list(b"start"), sampler_chain(sampler), 40, stop_ids=frozenset({256}), seed=9)
    search = PromptSearch(model, tokenizer, request, Hosted())
    while not search.done:
        search.advance()
    assert [each.ids for each in search.results()] == [plain.ids]


def test_majority_counts_equal_continuations() -> None:
    class Biased(Recurrent):
        """Model that generates a or b, and b more often."""

        def forward(self, ids_BT: Tensor, **options: Any) -> Any:
            output = super().forward(ids_BT, **options)
            output.logits = torch.full_like(output.logits, -50.0)
            output.logits[..., 97], output.logits[..., 98] = 0.0, 0.8
            return output

    (result,) = generate(
        Biased(), Bytes(), "x", decoding={"name": "best-of", "n": 25, "rank": "majority"}, max_new_tokens=1, seed=0
    )
    counts = Counter(each.text for each in result.alternatives)
    assert result.text == "b" == counts.most_common(1)[0][0]
    assert result.alternatives[0].score == counts["b"]


@pytest.mark.parametrize("decoding", ["beam", "diverse-beam", "best-of"])
def test_stop_strings_end_a_search(decoding: str) -> None:
    model, tokenizer = Recurrent(context_length=64, scale=0.5), Bytes()
    options: dict[str, Any] = {"decoding": decoding, "max_new_tokens": 12, "seed": 1, "stop_ids": ()}
    (free,) = generate(model, tokenizer, "start", **options)
    stop = next(free.text[at : at + 2] for at in range(3, len(free.text) - 3) if "�" not in free.text[at : at + 2])
    (result,) = generate(model, tokenizer, "start", stop=stop, **options)
    for each in result.alternatives:
        assert stop not in each.text
        assert (each.finish == "stop") == (stop in tokenizer.decode(each.ids))
    # Beams that ended may have been replaced by better ones; samples are all kept.
    assert result.text != free.text
    assert decoding != "best-of" or any(each.finish == "stop" for each in result.alternatives)


def test_samplers_act_in_a_search() -> None:
    model, tokenizer = Recurrent(context_length=64), Bytes()
    (free,) = generate(model, tokenizer, "start", decoding="beam", max_new_tokens=10, stop_ids=())
    chain: list[Any] = [{"name": "suppress-tokens", "tokens": free.ids[:3]}, {"name": "forced-tokens", "text": "Hi"}]
    (result,) = generate(model, tokenizer, "start", sampler=chain, decoding="beam", max_new_tokens=10, stop_ids=())
    assert result.text.startswith("Hi")
    assert not set(result.ids[2:]) & set(free.ids[:3])
    greedy = generate(model, tokenizer, "start", sampler="greedy", max_new_tokens=10, stop_ids=())[0]
    only = generate(model, tokenizer, "start", sampler="greedy", decoding="beam", max_new_tokens=10, stop_ids=())[0]
    assert only.ids == greedy.ids
    assert len(only.alternatives) == 1


def test_stateful_samplers_follow_the_rows_of_a_search() -> None:
    """Every beam has the state of its own text: the same search without a cache gives the same texts."""
    model, tokenizer = Recurrent(vocab_size=12, context_length=64, scale=0.4), Tokens()
    chain: list[Any] = [{"name": "repetition-penalty", "penalty": 1.5}, {"name": "dry", "breakers": []}]
    for decoding in ("beam", "diverse-beam"):
        (result,) = generate(model, tokenizer, [[1, 2]], sampler=chain, decoding=decoding, max_new_tokens=12)
        assert len(set(map(tuple, (each.ids for each in result.alternatives)))) == len(result.alternatives)


def test_streams_and_events_deliver_the_text_at_its_end() -> None:
    model, tokenizer = Recurrent(context_length=64, scale=0.5), Bytes()
    pieces: list[tuple[int, str]] = []
    options: dict[str, Any] = {"decoding": "beam", "max_new_tokens": 8, "stop_ids": ()}
    results = generate(model, tokenizer, ["a", "b"], on_text=lambda index, text: pieces.append((index, text)), **options)
    assert pieces == [(index, result.text) for index, result in enumerate(results)]
    assert [result.finish for result in results] == ["length"] * 2
    texts = stream(model, tokenizer, "a", **options)
    assert list(texts) == [results[0].text]
    assert texts.result.alternatives == results[0].alternatives
    cut = stream(model, tokenizer, "a", **options)
    cut.close()
    assert cut.result.finish == "interrupted"
    assert generate(model, tokenizer, "a", decoding="beam", max_new_tokens=0)[0].ids == []


def test_interrupted_search_returns_the_best_text_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    from gptkit.inference.search import PromptSearch

    advance, calls = PromptSearch.advance, itertools.count()

    def interrupted(self: PromptSearch) -> None:
        if next(calls) == 5:
            raise KeyboardInterrupt
        advance(self)

    monkeypatch.setattr(PromptSearch, "advance", interrupted)
    model = Recurrent(context_length=64)
    (result, other) = generate(model, Bytes(), ["a", "b"], decoding="beam", max_new_tokens=20, stop_ids=())
    assert (len(result.ids), result.finish) == (5, "interrupted")
    assert (other.ids, other.finish) == ([], "interrupted")


@pytest.mark.parametrize(
    ("decoding", "words"),
    [
        ("beem", "beam"),
        ({"name": "beam", "width": 0}, "width: must be at least 1, got 0"),
        ({"name": "beam", "width": 2.5}, "width: expected a whole number"),
        ({"name": "beam", "widht": 2}, "widht"),
        ({"name": "beam", "length_penalty": "long"}, "number"),
        ({"name": "beam", "early_stopping": True}, "never"),
        ({"name": "diverse-beam", "groups": 0}, "groups: must be at least 1"),
        ({"name": "diverse-beam", "diversity": -1}, "diversity: must be at least 0"),
        ({"name": "contrastive", "alpha": 1.5}, "alpha: must be at most 1"),
        ({"name": "best-of", "n": 0}, "n: must be at least 1"),
        ({"name": "best-of", "rank": "best"}, "likelihood"),
        ({"width": 3}, "name"),
    ],
)
def test_invalid_decodings_are_rejected(decoding: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        generate(Recurrent(), Bytes(), "a", decoding=decoding)


@pytest.mark.parametrize("fields", [{"trace": True}, {"log_probabilities": True}])
def test_searches_do_not_record_what_samplers_did(fields: dict[str, Any]) -> None:
    with pytest.raises(GptkitError, match="of decoding 'beam' cannot be recorded"):
        generate(Recurrent(), Bytes(), "a", decoding="beam", **fields)


def test_continuation_hides_its_tokens_in_messages() -> None:
    assert "ids" not in repr(Continuation([1], 0.5, ended=True))
