"""Generation with a cache gives the same text as without, in any batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gptkit.components.sampler.greedy import GreedySpec
from gptkit.components.sampler.temperature import TemperatureSpec
from gptkit.core.errors import GptkitError
from gptkit.inference import Generation, generate, generate_simple, score, stream
from tests.support.fakes import Bytes, Recurrent, Scripted

GREEDY = (GreedySpec(),)
WARM = (TemperatureSpec(value=1.0),)
TOKENIZER = Bytes()
PROMPTS = ["a", "some longer one", "mid", "x" * 16, "y" * 40]


def sliding(model: Recurrent, ids: list[int], n: int) -> list[int]:
    """Generate greedily without a cache; when a text fills the context, only its last half is kept."""
    history, start = list(ids), max(0, len(ids) - model.context_length)
    with torch.no_grad():
        for _ in range(n):
            if len(history) - start > model.context_length:
                start = len(history) - max(1, model.context_length // 2)
            history.append(int(model(torch.tensor([history[start:]])).logits[0, -1].argmax()))
    return history[len(ids) :]


def test_cached_greedy_text_equals_the_simple_loop() -> None:
    model = Recurrent(context_length=64)
    ids = TOKENIZER.encode("Once upon a time")
    expected = generate_simple(model, torch.tensor([ids]), 48)
    result = generate(model, TOKENIZER, [ids], sampler=GREEDY, max_new_tokens=48, stop_ids=())[0]
    assert [*ids, *result.ids] == expected[0].tolist()
    assert result.prompt_ids == ids
    assert result.finish == "length"
    assert len(set(result.ids)) > 5


def test_simple_loop_uses_the_last_part_only() -> None:
    model = Recurrent(context_length=4)
    long = torch.tensor([[9, 8, 7, 1, 2, 3, 4]])
    assert generate_simple(model, long, 1)[0, -1] == generate_simple(model, long[:, -4:], 1)[0, -1]
    assert generate_simple(model, long, 2, context_size=2).shape == (1, 9)
    assert model.calls[-1] == (1, 2)


def test_every_token_is_read_once() -> None:
    model = Recurrent(context_length=64)
    generate(model, TOKENIZER, "four", sampler=GREEDY, max_new_tokens=5, stop_ids=())
    assert model.calls == [(1, 4), (1, 1), (1, 1), (1, 1), (1, 1)]
    assert len(model.caches) == 1


@pytest.mark.parametrize("context_length", [1, 2, 3, 16, 64])
def test_uneven_batches_equal_single_rows(context_length: int) -> None:
    model = Recurrent(context_length=context_length)
    together = generate(model, TOKENIZER, PROMPTS, sampler=GREEDY, max_new_tokens=50, stop_ids=())
    assert len(set(together[1].ids)) > 5  # a repetitive text would be a weak test
    for prompt, result in zip(PROMPTS, together, strict=True):
        assert result.ids == sliding(model, TOKENIZER.encode(prompt), 50), prompt


def test_sliding_reprocesses_once_per_half_context() -> None:
    model = Recurrent(context_length=16)
    generate(model, TOKENIZER, ["0123456789abcdef"], sampler=GREEDY, max_new_tokens=41, stop_ids=())
    assert [call for call in model.calls if call[1] > 1] == [(1, 16)] + [(1, 8)] * 5
    assert len(model.calls) == 41


def test_overflow_stop_ends_rows_at_the_context_length() -> None:
    model = Recurrent(context_length=16)
    results = generate(
        model, TOKENIZER, ["0123456789", "01"], sampler=GREEDY, max_new_tokens=50, stop_ids=(), overflow="stop"
    )
    # The last token is generated, but not processed.
    assert [len(result.ids) for result in results] == [7, 15]
    assert {result.finish for result in results} == {"length"}
    for prompt, result in zip(["0123456789", "01"], results, strict=True):
        assert result.ids == sliding(model, TOKENIZER.encode(prompt), len(result.ids))
    with pytest.raises(GptkitError, match="prompt 1: the prompt has 17 tokens"):
        generate(model, TOKENIZER, ["a", "b" * 17], overflow="stop")


def test_drawn_text_does_not_depend_on_the_other_rows() -> None:
    model = Recurrent(context_length=16)
    settings: dict[str, Any] = {"sampler": WARM, "max_new_tokens": 60, "seed": 5, "stop_ids": (10, 20)}
    together = generate(model, TOKENIZER, PROMPTS, **settings)
    assert len({len(result.ids) for result in together}) > 1  # some rows left the batch early
    for location, prompt in enumerate(PROMPTS):
        others = ["other"] * location + [prompt]
        assert generate(model, TOKENIZER, others, **settings)[location].ids == together[location].ids
    assert generate(model, TOKENIZER, PROMPTS, **{**settings, "seed": 6})[0].ids != together[0].ids


def test_equal_prompts_give_different_texts_and_a_seed_repeats_them() -> None:
    model = Recurrent(context_length=64)
    first = generate(model, TOKENIZER, ["same"] * 4, sampler=WARM, max_new_tokens=20)
    assert len({result.text for result in first}) == 4
    again = generate(model, TOKENIZER, ["same"] * 4, sampler=WARM, max_new_tokens=20, seed=first[0].seed)
    assert [result.ids for result in again] == [result.ids for result in first]


def test_finished_rows_leave_the_batch() -> None:
    end = TOKENIZER.end_id
    assert end is not None
    scripts = [[65, end], [66, 66, 66, 66, 66, end], [67, 67, end], [68, 68, 68, 68, end]]
    model = Scripted(scripts, TOKENIZER.vocab_size)
    generation = Generation(model, TOKENIZER, ["p"] * 4, sampler=GREEDY, max_new_tokens=9)
    sizes = []
    while not generation.done:
        generation.advance()
        sizes.append(len(generation.scheduler.running))
    assert sizes == [4, 4, 3, 2, 2, 1]
    assert [result.text for result in generation.results()] == ["A", "BBBBB", "CC", "DDDD"]
    assert {result.finish for result in generation.results()} == {"end"}


def test_finished_row_is_removed_when_this_is_faster() -> None:
    end = TOKENIZER.end_id
    assert end is not None
    model = Scripted([[end]] + [[65, 65, 65, end]] * 7, TOKENIZER.vocab_size)
    generation = Generation(model, TOKENIZER, ["p"] * 8, sampler=GREEDY, max_new_tokens=9)
    for _ in range(3):
        generation.advance()
    assert len(generation.scheduler.running) == 8
    generation.advance()
    assert [result.text for result in generation.results()] == [""] + ["AAA"] * 7


def test_finish_reasons_and_extent_of_the_text() -> None:
    end = TOKENIZER.end_id
    assert end is not None
    scripts = [[*b"ab", end, 65], [*b"ab.\n", 65], [*b"ab#", 65], [*b"abcdefgh"]]
    results = generate(
        Scripted(scripts, 257), TOKENIZER, [""] * 4, sampler=GREEDY, max_new_tokens=6, stop=".\n", stop_ids=[end, ord("#")]
    )
    assert [result.finish for result in results] == ["end", "stop", "stop", "length"]
    assert [result.text for result in results] == ["ab", "ab", "ab", "abcdef"]
    assert [bytes(result.ids) for result in results] == [b"ab", b"ab.\n", b"ab", b"abcdef"]


def test_streaming_gives_the_same_text_in_whole_characters() -> None:
    script = [*"né ✓ fin".encode(), *b"STOP", *b"tail"]
    streamed = stream(Scripted([script], 257), TOKENIZER, "p", sampler=GREEDY, max_new_tokens=50, stop="STOP")
    pieces = list(streamed)
    assert pieces == ["n", "é", " ", "✓", " ", "f", "i", "n"]
    assert streamed.result.text == "né ✓ fin"
    assert streamed.result.finish == "stop"


def test_callback_receives_the_text_of_every_row() -> None:
    texts = {0: "", 1: ""}

    def record(row: int, piece: str) -> None:
        assert piece
        texts[row] += piece

    scripts = [[*"ünï".encode()], [*"ok\xe2".encode("latin-1")]]
    results = generate(Scripted(scripts, 257), TOKENIZER, ["p", "q"], sampler=GREEDY, max_new_tokens=5, on_text=record)
    assert [texts[0], texts[1]] == [result.text for result in results]
    assert results[0].text == "ünï"
    assert results[1].text == "ok���"


def test_empty_prompts_start_from_a_special_token() -> None:
    model = Recurrent()
    assert generate(model, TOKENIZER, "", max_new_tokens=1)[0].prompt_ids == [256]
    assert generate(model, TOKENIZER, [[]], max_new_tokens=1)[0].prompt_ids == [256]

    class Starts(Bytes):
        start_id = 1

    assert generate(model, Starts(), "", max_new_tokens=1)[0].prompt_ids == [1]
    with pytest.raises(GptkitError, match="neither a start nor an end token") as caught:
        generate(model, Bytes(has_end=False), ["a", ""])
    assert caught.value.hint


def test_ids_outside_the_tokenizers_vocabulary_are_never_generated() -> None:
    model = Recurrent(vocab_size=4000)
    ids = generate(model, TOKENIZER, ["a"] * 20, max_new_tokens=10)
    assert max(max(result.ids) for result in ids if result.ids) <= 256
    with pytest.raises(GptkitError, match="contains token 4000, but the model's vocabulary has 4000"):
        generate(model, TOKENIZER, [[4000]])
    with pytest.raises(GptkitError, match="prompt 1 contains token -1"):
        generate(model, TOKENIZER, [[1], [2, -1]])


@pytest.mark.parametrize("context_length", [5, 64])
def test_log_probabilities_equal_the_models(context_length: int) -> None:
    model = Recurrent(context_length=context_length)
    result = generate(
        model,
        TOKENIZER,
        "abc",
        sampler=(TemperatureSpec(value=0.5),),
        max_new_tokens=12,
        log_probabilities=True,
        stop_ids=(),
    )[0]
    expected = score(model, result.prompt_ids + result.ids)[2:]
    assert result.log_probabilities == pytest.approx(expected.tolist(), abs=1e-5)
    assert generate(model, TOKENIZER, "abc", max_new_tokens=1)[0].log_probabilities is None


def test_most_likely_tokens_are_returned_with_their_log_probabilities() -> None:
    model = Recurrent(context_length=64)
    result = generate(model, TOKENIZER, "abc", sampler="greedy", max_new_tokens=5, top_log_probabilities=3, stop_ids=())[0]
    tops, log_probabilities = result.top_log_probabilities, result.log_probabilities
    assert tops is not None
    assert log_probabilities is not None
    assert [len(top) for top in tops] == [3] * 5
    # Greedy chooses the most likely token, and the others follow in order.
    assert [top[0] for top in tops] == list(zip(result.ids, log_probabilities, strict=True))
    assert all(top == sorted(top, key=lambda pair: -pair[1]) for top in tops)
    alone = generate(model, TOKENIZER, "abc", sampler="greedy", max_new_tokens=5, log_probabilities=True, stop_ids=())[0]
    assert alone.top_log_probabilities is None
    assert alone.log_probabilities == log_probabilities


def test_dropout_is_off_during_generation_only() -> None:
    model = Recurrent()
    model.train()
    generate(model, TOKENIZER, "a", max_new_tokens=3)
    score(model, [1, 2, 3])
    assert model.modes
    assert not any(model.modes)
    assert model.training
    model.eval()
    generate(model, TOKENIZER, "a", max_new_tokens=3)
    assert not model.training


def test_empty_requests_return_empty_results() -> None:
    model = Recurrent()
    assert generate(model, TOKENIZER, []) == []
    result = generate(model, TOKENIZER, "a", max_new_tokens=0)[0]
    assert (result.ids, result.text, result.finish) == ([], "", "length")
    assert not model.calls
    with pytest.raises(GptkitError, match="stop string is empty"):
        generate(model, TOKENIZER, "a", stop=["x", ""])
    with pytest.raises(GptkitError, match="max_new_tokens is -1"):
        generate(model, TOKENIZER, "a", max_new_tokens=-1)


class Interrupted(Scripted):
    def forward(self, ids_BT: torch.Tensor, *, cache: Any, last_only: bool = False) -> Any:
        if self.at == 4:
            raise KeyboardInterrupt
        return super().forward(ids_BT, cache=cache, last_only=last_only)


def test_ctrl_c_returns_partial_texts() -> None:
    end = TOKENIZER.end_id
    assert end is not None
    pieces = []
    model = Interrupted([[*b"ab", end], [*b"noSTx"]], 257)
    results = generate(
        model, TOKENIZER, ["p", "q"], sampler=GREEDY, stop="STOP", on_text=lambda row, piece: pieces.append((row, piece))
    )
    assert [(result.text, result.finish) for result in results] == [("ab", "end"), ("noST", "interrupted")]
    assert pieces[-1] == (1, "ST")

    streamed = stream(Interrupted([[*b"noSTx"]], 257), TOKENIZER, "p", sampler=GREEDY, stop="STOP")
    assert list(streamed) == ["n", "o", "ST"]
    assert streamed.result.finish == "interrupted"


def test_stream_can_be_closed_early() -> None:
    streamed = stream(Scripted([[*b"abcdef"]], 257), TOKENIZER, "p", sampler=GREEDY)
    assert next(streamed) == "a"
    streamed.close()
    assert list(streamed) == []
    assert (streamed.result.text, streamed.result.finish) == ("a", "interrupted")


def test_timings_count_tokens() -> None:
    model = Recurrent(context_length=8)
    timings = generate(model, TOKENIZER, ["abc", "x" * 20], max_new_tokens=5, stop_ids=())[0].timings
    assert (timings.prompt_tokens, timings.decoded_tokens) == (11, 8)
    assert timings.prefill_seconds > 0
    assert timings.decode_rate == pytest.approx(8 / timings.decode_seconds)


def test_scores_equal_log_probabilities_of_the_text() -> None:
    model = Recurrent(context_length=64)
    ids = list(b"a text to be scored, whole")
    with torch.no_grad():
        log_p = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = torch.stack([log_p[at, ids[at + 1]] for at in range(len(ids) - 1)])
    for chunk in (1, 7, 256):
        torch.testing.assert_close(score(model, ids, chunk=chunk), expected)
    assert score(model, [1]).shape == (0,)
    with pytest.raises(GptkitError, match="contains token 257"):
        score(model, [1, 257])


@pytest.mark.parametrize("context_length", [1, 2, 5, 16])
def test_long_texts_are_scored_with_half_a_context_at_least(context_length: int) -> None:
    model = Recurrent(context_length=context_length)
    ids = list(b"a text that is much longer than what the model can see at once")
    start, expected = 0, []
    with torch.no_grad():
        for at in range(1, len(ids)):
            if at - start > context_length:
                start = at - max(1, context_length // 2)
            expected.append(model(torch.tensor([ids[start:at]])).logits[0, -1].log_softmax(-1)[ids[at]])
    torch.testing.assert_close(score(model, ids, chunk=4), torch.stack(expected))
