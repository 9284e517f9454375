"""Beam search."""

from __future__ import annotations

import itertools

import pytest
import torch

from gptkit.components.sampler.greedy import GreedySpec
from gptkit.core.errors import GptkitError
from gptkit.inference import beam_search, generate, score
from tests.support.fakes import Bytes, Few, Recurrent


def every_text(model: Recurrent, prompt: list[int], longest: int, length_penalty: float) -> list[tuple[float, list[int]]]:
    """Return all texts of up to `longest` tokens that end, or reach that length, with their scores."""
    result = []
    for length in range(1, longest + 1):
        for ids in itertools.product(range(4), repeat=length):
            ended = ids[-1] == 3
            if 3 in ids[:-1] or (not ended and length < longest):
                continue
            log_p = float(score(model, [*prompt, *ids])[len(prompt) - 1 :].sum())
            result.append((log_p / length**length_penalty, list(ids[:-1] if ended else ids)))
    return sorted(result, reverse=True)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("context_length", [3, 64])
def test_wide_beam_search_finds_the_best_texts(length_penalty: float, context_length: int) -> None:
    for seed in range(3):
        model = Recurrent(vocab_size=4, context_length=context_length, scale=0.5, seed=seed)
        beams = beam_search(model, Few(), "ab", width=200, max_new_tokens=4, length_penalty=length_penalty)
        expected = every_text(model, [0, 1], 4, length_penalty)
        assert [beam.ids for beam in beams] == [ids for _, ids in expected]
        assert [beam.score for beam in beams] == pytest.approx([value for value, _ in expected], abs=1e-5)
        assert {len(beam.ids) for beam in beams if not beam.ended} == {4}
        assert beams[0].text == Few().decode(beams[0].ids)


def test_beam_search_improves_on_greedy_and_width_one_is_greedy() -> None:
    tokenizer = Bytes()
    gains = []
    for seed in range(5):
        model = Recurrent(context_length=16, seed=seed)
        one, four = (
            beam_search(model, tokenizer, "start", width=width, max_new_tokens=24, stop_ids=())[0] for width in (1, 4)
        )
        greedy = generate(model, tokenizer, "start", sampler=[GreedySpec()], max_new_tokens=24, stop_ids=())[0]
        assert one.ids == greedy.ids
        gains.append(four.log_probability - one.log_probability)
    assert min(gains) > -1e-4
    assert max(gains) > 0.1


def plain_search(model: Recurrent, prompt: list[int], width: int, longest: int) -> list[tuple[float, list[int]]]:
    """Search without a cache; scores are log-probabilities per token."""
    live, result = [(0.0, list[int]())], list[tuple[float, list[int]]]()
    for step in range(longest):
        options = []
        for total, ids in live:
            with torch.no_grad():
                log_p = model(torch.tensor([[*prompt, *ids]])).logits[0, -1].log_softmax(-1).tolist()
            options += [(total + log_p[token], [*ids, token]) for token in range(4)]
        options.sort(reverse=True)
        result += [(total / len(ids), ids[:-1]) for total, ids in options[:width] if ids[-1] == 3]
        live = [option for option in options if option[1][-1] != 3][:width]
        if step == longest - 1:
            result += [(total / len(ids), ids) for total, ids in live]
        result = sorted(result, reverse=True)[:width]
        if len(result) == width and live[0][0] / len(live[0][1]) <= result[-1][0]:
            break
    return result


@pytest.mark.parametrize("width", [1, 2, 3])
def test_beam_search_follows_its_definition(width: int) -> None:
    for seed in range(12):
        model = Recurrent(vocab_size=4, context_length=64, scale=0.4, seed=seed)
        beams = beam_search(model, Few(), "ab", width=width, max_new_tokens=12)
        expected = plain_search(model, [0, 1], width, 12)
        assert [beam.ids for beam in beams] == [ids for _, ids in expected], seed


def test_beam_search_generates_only_ids_of_the_tokenizer() -> None:
    model = Recurrent(vocab_size=4000)
    assert max(max(beam.ids) for beam in beam_search(model, Bytes(), "a", max_new_tokens=10)) <= 256


def test_reported_probability_equals_the_models() -> None:
    model = Recurrent(context_length=64)
    for beam in beam_search(model, Bytes(), "start", width=3, max_new_tokens=10, stop_ids=()):
        whole = score(model, torch.tensor([*b"start", *beam.ids]))
        assert beam.log_probability == pytest.approx(float(whole[4:].sum()), abs=1e-4)
        assert beam.score == pytest.approx(beam.log_probability / 10)


def test_boundary_cases() -> None:
    model = Recurrent()
    assert beam_search(model, Bytes(), "a", max_new_tokens=0)[0].ids == []
    with pytest.raises(GptkitError, match="width is 0"):
        beam_search(model, Bytes(), "a", width=0)
