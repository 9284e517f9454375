"""Samplers that depend on the prompt and on the number of generated tokens.

Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.generation import WatermarkDetector
from transformers.generation import logits_process as reference

from gptkit.components.sampler.watermark import WatermarkSpec
from gptkit.core.errors import GptkitError
from gptkit.core.registry import default_registry
from gptkit.inference import Request, Scheduler, generate
from gptkit.inference.watermark import detect
from gptkit.kinds.sampler import SamplerContext, SamplerSpec
from tests.support.fakes import Bytes, Recurrent

VOCAB, ROWS = 60, 1000


class Ends:
    end_id = 7


def spec(name: str, **fields: Any) -> SamplerSpec:
    made = default_registry().component("sampler", name).model_validate({"name": name, **fields})
    assert isinstance(made, SamplerSpec)
    return made


def random_case(rows: int = ROWS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits_BV = torch.randn(rows, VOCAB, generator=generator) * torch.logspace(-1, 1, rows)[:, None]
    return logits_BV, torch.randint(0, 5, (rows, 12), generator=generator)


def test_sequence_bias_equals_transformers() -> None:
    logits_BV, ids_BT = random_case()
    biases = {(3,): 1.5, (0, 1): -2.0, (2, 2, 4): 9.0, (1, 4): 0.5, (4, 4): -1e6}
    sampler = spec("sequence-bias", sequences=[{"tokens": list(ids), "bias": bias} for ids, bias in biases.items()])
    actual_BV = sampler.build(SamplerContext(VOCAB, ROWS))(logits_BV, ids_BT.tolist())
    torch.testing.assert_close(actual_BV, reference.SequenceBiasLogitsProcessor(biases)(ids_BT, logits_BV))


def test_length_penalty_equals_transformers() -> None:
    logits_BV, ids_BT = random_case()
    logits_BV[:5, 7] = -torch.inf
    sampler = spec("length-penalty", start=3, factor=1.4).build(SamplerContext(VOCAB, ROWS, Ends()))  # type: ignore[arg-type]
    external = reference.ExponentialDecayLengthPenalty((3, 1.4), 7, 4)
    for length in range(4, 12):
        actual_BV = sampler(logits_BV, ids_BT[:, :length].tolist())
        torch.testing.assert_close(actual_BV, external(ids_BT[:, :length], logits_BV))
        assert bool((actual_BV != logits_BV).any()) == (length > 7)
    assert sampler(logits_BV, [[1] * 10_000] * ROWS).max() < torch.inf


def test_forced_tokens_equal_transformers() -> None:
    logits_BV, ids_BT = random_case()
    context = SamplerContext(VOCAB, ROWS, Ends(), limits=(5,) * ROWS)  # type: ignore[arg-type]
    sampler = spec("forced-tokens", tokens={0: 9, 2: 3}, end=True).build(context)
    begin, end = reference.ForcedBOSTokenLogitsProcessor(9), reference.ForcedEOSTokenLogitsProcessor(6, 7)
    for length in range(1, 7):
        ids = ids_BT[:, :length]
        actual_BV, expected_BV = sampler(logits_BV, ids.tolist()), end(ids, begin(ids, logits_BV))
        if length == 3:
            assert (actual_BV.argmax(-1) == 3).all()
        else:
            torch.testing.assert_close(actual_BV.softmax(-1), expected_BV.softmax(-1))


def test_forced_token_that_is_excluded_is_not_forced() -> None:
    logits_BV = torch.tensor([[0.0, -torch.inf, 1.0], [0.0, 2.0, 1.0]])
    out = spec("forced-tokens", tokens={0: 1}).build(SamplerContext(3, 2))(logits_BV, [[5], [5, 5]])
    assert out.tolist() == [[0.0, -torch.inf, 1.0], [-torch.inf, 2.0, -torch.inf]]


def test_tokens_are_suppressed_at_the_beginning_only() -> None:
    logits_BV, ids_BT = random_case()
    sampler = spec("suppress-tokens", tokens=(3, 9), first=1).build(SamplerContext(VOCAB, ROWS))
    external = reference.SuppressTokensAtBeginLogitsProcessor([3, 9], begin_index=4)
    for length in (4, 5, 6):
        actual_BV = sampler(logits_BV, ids_BT[:, :length].tolist())
        torch.testing.assert_close(actual_BV, external(ids_BT[:, :length], logits_BV))


@pytest.mark.parametrize(
    ("decay", "weights"), [("none", [1, 1, 1, 1, 0]), ("linear", [1, 0.75, 0.5, 0.25, 0]), ("exponential", [1, 0.5])]
)
def test_expiring_bias_equals_its_formula(decay: str, weights: list[float]) -> None:
    logits_BV, ids_BT = random_case(2)
    sampler = spec("expiring-bias", bias={3: 2.0, 5: -1.0}, tokens=4, decay=decay).build(SamplerContext(VOCAB, 2))
    step = 4 if decay == "exponential" else 1
    for t, weight in enumerate(weights):
        histories = [row[: 2 + t * step + index] for index, row in enumerate(ids_BT.repeat(1, 2).tolist())]
        difference_BV = sampler(logits_BV, histories) - logits_BV
        expected_V = torch.zeros(VOCAB)
        expected_V[3], expected_V[5] = 2.0 * weight, -weight
        torch.testing.assert_close(difference_BV, expected_V.expand(2, -1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["repetition-penalty", "frequency-penalty", "presence-penalty"])
def test_penalties_can_ignore_the_prompt(name: str) -> None:
    sampler = spec(name, penalty=2.0, prompt=False).build(SamplerContext(4, 2))
    logits = torch.ones(2, 4)
    assert torch.equal(sampler(logits, [[0, 1], [2]]), logits)
    assert (sampler(logits, [[0, 1, 3], [2, 2]]) != logits).tolist() == [
        [False, False, False, True],
        [False, False, True, False],
    ]
    sampler.reorder([1])
    assert (sampler(logits[:1], [[2, 2, 0]]) != logits[:1]).tolist() == [[True, False, True, False]]


def test_repetition_penalty_without_prompt_equals_transformers() -> None:
    logits_BV, ids_BT = random_case()
    sampler = spec("repetition-penalty", penalty=1.3, prompt=False).build(SamplerContext(VOCAB, ROWS))
    external = reference.RepetitionPenaltyLogitsProcessor(1.3, prompt_ignore_length=4)
    for length in (4, 9):
        actual_BV = sampler(logits_BV, ids_BT[:, :length].tolist())
        torch.testing.assert_close(actual_BV, external(ids_BT[:, :length], logits_BV.clone()))


@pytest.mark.parametrize(
    ("scheme", "width", "rows"), [("lefthash", 1, ROWS), ("lefthash", 3, 50), ("selfhash", 1, 60), ("selfhash", 4, 60)]
)
def test_watermark_and_its_detector_equal_transformers(scheme: str, width: int, rows: int) -> None:
    logits_BV, ids_BT = random_case(rows)
    fields = {"ratio": 0.3, "bias": 1.7, "key": 12345, "scheme": scheme, "width": width}
    names = {"ratio": "greenlist_ratio", "key": "hashing_key", "scheme": "seeding_scheme", "width": "context_width"}
    external_fields = {names.get(key, key): value for key, value in fields.items()}
    external = reference.WatermarkLogitsProcessor(VOCAB, "cpu", **external_fields)
    watermark = spec("watermark", **fields)
    assert isinstance(watermark, WatermarkSpec)
    sampler = watermark.build(SamplerContext(VOCAB, rows))
    torch.testing.assert_close(sampler(logits_BV, ids_BT.tolist()), external(ids_BT, logits_BV))
    assert torch.equal(sampler(logits_BV, [[]] * rows), logits_BV)
    config = SimpleNamespace(bos_token_id=-1, vocab_size=VOCAB, is_encoder_decoder=False)
    for ignore in (False, True):
        detector = WatermarkDetector(config, "cpu", external_fields, ignore_repeated_ngrams=ignore)  # type: ignore[arg-type]
        expected = detector(ids_BT[:20], return_dict=True)
        for row, ids in enumerate(ids_BT[:20].tolist()):
            score = detect(ids, watermark, VOCAB, ignore_repeated=ignore)
            assert (score.n_scored, score.n_green) == (
                int(np.asarray(expected.num_tokens_scored)[row]),
                int(np.asarray(expected.num_green_tokens)[row]),
            )
            assert score.z == pytest.approx(float(expected.z_score[row]))
            assert score.p_value == pytest.approx(float(expected.p_value[row]), abs=1e-6)
            assert score.green_fraction == pytest.approx(score.n_green / score.n_scored)


def test_generated_text_has_the_watermark() -> None:
    watermark = spec("watermark", bias=6.0)
    assert isinstance(watermark, WatermarkSpec)
    options: dict[str, Any] = {"max_new_tokens": 150, "seed": 1, "stop_ids": ()}
    plain, marked = (
        generate(Recurrent(context_length=300), Bytes(), "start", sampler=sampler, **options)[0]
        for sampler in ((), (watermark,))
    )
    assert detect(marked.ids, watermark, 257).z > 8
    assert abs(detect(plain.ids, watermark, 257).z) < 4
    with pytest.raises(GptkitError, match="the text has 1 tokens, but this watermark needs at least 2"):
        detect([3], watermark, 257)


class External:
    """The model in the form that transformers' class calls; without a cache."""

    def __init__(self, model: Recurrent) -> None:
        self.model = model

    def __call__(self, ids_BT: Tensor, **_: Any) -> Any:
        class Output(SimpleNamespace):
            def get(self, *_: Any) -> None: ...

        return Output(logits=self.model(ids_BT).logits)


@pytest.mark.parametrize("negative", [None, "bad"])
def test_guidance_equals_transformers_in_a_generation(negative: str | None) -> None:
    """The texts of a greedy generation, and those that transformers' class leads to."""
    model, tokenizer = Recurrent(context_length=64, scale=0.3), Bytes()
    prompts = ["start", "other", "first"]
    sampler = [spec("guidance", scale=2.5, **({"negative": negative} if negative else {})), spec("greedy")]
    results = generate(model, tokenizer, prompts, sampler=sampler, max_new_tokens=12, stop_ids=())
    ids_BT = torch.tensor([list(text.encode()) for text in prompts])
    other_BT = torch.tensor([list(negative.encode())] * 3) if negative else None
    external = reference.UnbatchedClassifierFreeGuidanceLogitsProcessor(2.5, External(model), other_BT, use_cache=False)
    for _ in range(12):
        with torch.no_grad():
            scores_BV = external(ids_BT, model(ids_BT).logits[:, -1])
        ids_BT = torch.cat((ids_BT, scores_BV.argmax(-1, keepdim=True)), dim=1)
    assert [result.ids for result in results] == ids_BT[:, 5:].tolist()
    plain = generate(model, tokenizer, prompts, sampler=["greedy"], max_new_tokens=12, stop_ids=())
    assert [result.ids for result in plain] != [result.ids for result in results]


def test_guidance_scores_equal_transformers_on_random_rows() -> None:
    logits_BV, ids_BT = random_case()
    model = Recurrent(vocab_size=VOCAB, context_length=64, scale=0.3)
    context = SamplerContext(VOCAB, ROWS, reader=lambda: Direct(model))
    external = reference.UnbatchedClassifierFreeGuidanceLogitsProcessor(0.4, External(model), use_cache=False)
    sampler = spec("guidance", scale=0.4).build(context)
    with torch.no_grad():
        for length in (3, 4, 5):
            actual_BV = sampler(logits_BV, ids_BT[:, :length].tolist())
            torch.testing.assert_close(actual_BV, external(ids_BT[:, :length], logits_BV), rtol=1e-5, atol=1e-4)


class Direct:
    """A reader without a cache."""

    def __init__(self, model: Recurrent) -> None:
        self.model = model

    def __call__(self, texts: Any) -> Tensor:
        logits: Tensor = self.model(torch.tensor(texts)).logits[:, -1]
        return logits

    def reorder(self, rows: Any) -> None: ...


def test_guidance_reads_every_token_of_the_other_text_once_and_follows_its_rows() -> None:
    model, tokenizer = Recurrent(context_length=64), Bytes()
    sampler = [spec("guidance", negative="abc"), spec("greedy")]
    alone = [
        generate(model, tokenizer, prompt, sampler=sampler, max_new_tokens=n, stop_ids=())[0].ids
        for prompt, n in (("one", 4), ("second", 9))
    ]
    model.calls.clear()
    scheduler = Scheduler(model, tokenizer)
    requests = [Request(list(text.encode()), tuple(sampler), max_new_tokens=n) for text, n in (("one", 4), ("second", 9))]
    states = [scheduler.submit(request) for request in requests]
    while not scheduler.idle:
        scheduler.step()
    assert [state.history[len(state.request.prompt_ids) :] for state in states] == alone
    assert sum(n_tokens == 3 for _, n_tokens in model.calls) == 1  # the negative text is read once
    with pytest.raises(GptkitError, match="sampler 'guidance' needs the model"):
        sampler[0].build(SamplerContext(257))


def strings_and_text(seed: int, **fields: Any) -> tuple[list[str], str]:
    """Ban strings that the model would generate, and generate with them banned."""
    extra = [bytes(pair) for pair in itertools.product(b"abcde", repeat=2)] + [b"abc", b"dea"]
    model, tokenizer = Recurrent(vocab_size=256 + len(extra) + 1, context_length=500, seed=seed), Bytes(extra)
    letters = {*range(256, 256 + len(extra)), *b"abcdeABCDE"}
    others = [token for token in range(256 + len(extra) + 1) if token not in letters]
    chain: list[Any] = [spec("suppress-tokens", tokens=others)]
    options: dict[str, Any] = {"max_new_tokens": 250, "seed": seed, "stop_ids": ()}
    free = generate(model, tokenizer, "dab", sampler=chain, **options)[0].text
    banned = [free[start : start + length] for start, length in ((3, 2), (30, 3), (80, 4), (100, 5), (150, 7))]
    text = generate(model, tokenizer, "dab", sampler=[spec("banned-strings", strings=banned, **fields), *chain], **options)[
        0
    ].text
    return banned, text


@pytest.mark.parametrize("seed", range(6))
def test_generated_text_does_not_contain_banned_strings(seed: int) -> None:
    banned, text = strings_and_text(seed)
    assert len(text) > 250
    assert [each for each in banned if each in "dab" + text] == []


def test_generated_text_does_not_contain_banned_strings_in_any_case() -> None:
    banned, text = strings_and_text(9, ignore_case=True)
    assert [each for each in banned if each.lower() in ("dab" + text).lower()] == []


def test_banned_strings_are_excluded_exactly_where_they_would_be_completed() -> None:
    tokenizer = Bytes([b"ab", b"bc", b"abc", b"cab"])
    a, b, c, ab, bc, abc, cab = 97, 98, 99, 256, 257, 258, 259

    def excluded(history: list[int], *strings: str) -> list[int]:
        sampler = spec("banned-strings", strings=strings).build(SamplerContext(261, 1, tokenizer))
        return (sampler(torch.zeros(1, 261), [history])[0] == -torch.inf).nonzero().flatten().tolist()

    assert excluded([], "abc") == [abc]
    assert excluded([a], "abc") == [bc, abc]
    assert excluded([a, b], "abc") == [c, abc, cab]
    assert excluded([cab], "abc") == [c, abc, cab]
    assert excluded([a, 260, b], "abc") == [abc]  # the end token separates
    assert excluded([ab], "abc", "b") == [b, c, ab, bc, abc, cab]
    assert excluded([0xC3], "é") == [0xA9]
    assert excluded([a], "aab", "ab") == [b, ab, bc, abc, cab]


@pytest.mark.parametrize("budget", [0, 1, 5])
@pytest.mark.parametrize("prompt", ["x<think>", "<think>a</think>b", "plain <think>\n"])
def test_reasoning_ends_with_its_budget(budget: int, prompt: str) -> None:
    """The model generates the start marker where the prompt does not, and would reason forever."""
    tokenizer = Bytes()

    sampler = spec("reasoning-budget", budget=budget, message="!").build(SamplerContext(257, 1, tokenizer))
    history, wanted = list(prompt.encode()), list(b"<think>" + b"a" * 40 if prompt.endswith("b") else b"a" * 40)
    for _ in range(40):
        logits = torch.zeros(1, 257)
        logits[0, wanted[0]] = 5.0
        token = int(sampler(logits, [history])[0].argmax())
        if token == wanted[0]:
            wanted.pop(0)
        history.append(token)
    text = tokenizer.decode(history)
    generated = text[len(prompt) :]
    expected = ("<think>" if prompt.endswith("b") else "") + "a" * budget + "!</think>"
    assert generated.startswith(expected)
    assert set(generated[len(expected) :]) == {"a"}


def test_reasoning_is_not_ended_within_a_character_or_after_its_own_end() -> None:
    tokenizer = Bytes()
    sampler = spec("reasoning-budget", budget=2).build(SamplerContext(257, 2, tokenizer))
    first = list(b"<think>")
    euro = list("€".encode())
    logits = torch.zeros(2, 257)
    for n in range(3):
        out = sampler(logits, [first + euro[:n], [*first, *b"</think>"][: 7 + n]])
        assert torch.equal(out[0], logits[0])
    out = sampler(logits, [first + euro, [*first, *b"</"]])
    assert out[0].argmax() == ord("<")
    sampler.reorder([0])
    assert sampler(logits[:1], [[*first, *euro, ord("<")]]).argmax() == ord("/")


def test_reasoning_budget_does_not_count_after_the_end_marker() -> None:
    sampler = spec("reasoning-budget", budget=3).build(SamplerContext(257, 1, Bytes()))
    logits = torch.zeros(1, 257)
    history = list(b"<think>ab</think>")
    sampler(logits, [history[:7]])
    # Tokens may arrive several at a time, as with speculative decoding.
    assert torch.equal(sampler(logits, [[*history, *b"free text of any length"]]), logits)
