"""Decode steps of several tokens, which verify proposals: the numbers of the model, and the texts of plain decoding."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch

from gptkit.components.drafter.ngram import NgramSpec
from gptkit.components.precision.bf16 import BF16Spec
from gptkit.inference import Generated, Request, RequestState, Scheduler, Session, generate
from gptkit.inference.compiled.decoding import CompiledDecoding, decoding_model
from gptkit.inference.compiled.form import ONE_TOKEN, WIDTHS, StepForm
from gptkit.inference.compiled.layout import has_room
from gptkit.inference.compiled.slot import Slot
from gptkit.inference.compiled.store import Store
from gptkit.inference.compiled.trace import trace
from gptkit.inference.compiled.worker import prepare
from gptkit.inference.speculative import SpeculativeScheduler
from gptkit.kinds.drafter import Drafter, DrafterContext, DrafterSpec
from gptkit.model.gpt import GPT
from gptkit.model.packing import apply_precision
from gptkit.presets.catalog import shipped
from tests.support.chi_square import assert_drawn_from
from tests.support.decoded_models import TOKENIZER, decoded_model
from tests.support.fakes import Bytes
from tests.support.presets import V, marked, small_preset
from tests.support.traced_steps import interpret_steps, interpreted

PRESETS = sorted(name for name in shipped() if not name.startswith("finetune"))
FAST = {"gpt2", "modern", "gemma3-1b", "deepseek-v3", "gpt-oss-20b", "qwen3-next-80b-a3b"}
PENALTIES = [{"name": "repetition-penalty", "penalty": 1.3}, {"name": "temperature", "value": 0.7}]
NEEDS_COMPILER = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="needs a C++ compiler")


class Periodic(DrafterSpec):
    """Drafter for these tests: the last tokens again, some of which are wrong."""

    name: Literal["periodic"] = "periodic"

    def build(self, context: DrafterContext) -> Drafter:
        return PeriodicDrafter()


class PeriodicDrafter(Drafter):
    def propose(self, history: Sequence[int], limit: int) -> Sequence[int]:
        return list(history[-1 - len(history) % 11 :])[:limit]


@torch.no_grad()
def compare_widths(model: GPT, step: Any, width: int, padding: list[int]) -> None:
    """Verify tokens with both, and discard some of them, several times."""
    n_rows, generator = len(padding), torch.Generator().manual_seed(0)
    ids_BT = torch.randint(V, (n_rows, 9), generator=generator)
    left_B = torch.tensor(padding) if any(padding) else None
    caches = [model.new_cache(n_rows, 128, left_padding_B=left_B) for _ in range(2)]
    for cache in caches:
        model(ids_BT, cache=cache, last_only=True)
    n_steps = 0
    for n_tokens in (width, width - 1, width, 2, width // 2 + 1, *[width] * (60 // width)):
        if not has_room(caches[1], n_tokens, width):
            continue
        n_steps += 1
        ids_BT = torch.randint(V, (n_rows, n_tokens), generator=generator)
        for cache in caches:
            cache.mark()
        torch.testing.assert_close(step(ids_BT, caches[1]), model(ids_BT, cache=caches[0]).logits, atol=2e-4, rtol=2e-4)
        assert caches[0].length == caches[1].length
        for n_discarded in (n_tokens // 3, n_tokens if n_steps % 3 == 0 else 0):
            length = caches[0].length - n_discarded
            if all(cache.can_truncate(length) for cache in caches):
                for cache in caches:
                    cache.truncate(length)
                break
    assert n_steps >= 2
    ids_B1 = torch.randint(V, (n_rows, 1), generator=generator)
    torch.testing.assert_close(*(model(ids_B1, cache=cache).logits for cache in caches), atol=2e-4, rtol=2e-4)


def nightly(value: Any) -> Any:
    """Return a parameter that CI leaves to `make nightly`."""
    return pytest.param(value, marks=pytest.mark.nightly)


@pytest.mark.slow
@pytest.mark.parametrize("preset", marked(PRESETS, FAST, turn=4, of=6))
def test_step_of_several_tokens_equals_the_pass_of_the_model(preset: str) -> None:
    model = small_preset(preset, each=1)
    if model.new_cache(1).is_plain:  # else texts are always computed eagerly
        compare_widths(model, interpreted(model, StepForm(width=8)), 8, [0])


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["modern", "gemma3-1b", nightly("qwen3-next-80b-a3b")])
def test_step_of_several_tokens_of_uneven_rows(preset: str) -> None:
    model = small_preset(preset)
    step = interpreted(model, StepForm(many=True, width=4))
    for padding in ([0, 3, 5], [0, 2, 4, 1, 0]):
        compare_widths(model, step, 4, padding)


def texts(results: Sequence[Generated]) -> list[list[int]]:
    return [result.ids for result in results]


@pytest.mark.slow
@pytest.mark.parametrize("n_rows", [1, nightly(2)])
@pytest.mark.parametrize("name", ["rotary", "dynamic", *map(nightly, ("learned", "window", "recurrent", "latent"))])
def test_texts_are_those_of_plain_decoding(name: str, n_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gpt, calls = decoded_model(name, 48), interpret_steps(monkeypatch)
    options: dict[str, Any] = {"max_new_tokens": 60, "stop_ids": (), "seed": 2}
    for sampler in ("greedy", PENALTIES):
        prompts = ["to be, to be, to", "a"][:n_rows]
        expected = generate(gpt, TOKENIZER, prompts, sampler=sampler, **options)
        for drafter in (Periodic(), NgramSpec(min_n=1)):
            result = generate(gpt, TOKENIZER, prompts, sampler=sampler, drafter=drafter, compile=True, **options)
            assert texts(result) == texts(expected)
            assert result[0].timings.drafted_tokens > 0 or name == "dynamic"
    widths = {form.width for form in calls}
    assert all(form.many == (n_rows > 1) for form in calls)
    if name == "dynamic":  # whose positions depend on the length of the text
        assert not calls
    elif name in ("window", "recurrent"):  # whose buffers have no room for 16, or which cannot fill up
        assert widths == {1, 4, 8}
    else:
        assert widths == set(WIDTHS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rotary", nightly("recurrent")])
def test_sessions_and_arrivals_with_compiled_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpt, calls = decoded_model(name, 48), interpret_steps(monkeypatch)

    def scheduled(scheduler: Scheduler) -> list[list[int]]:
        states: list[RequestState] = []
        for index in range(5):
            prompt = TOKENIZER.encode("abcab" * (1 + index % 3))
            states.append(scheduler.submit(Request(prompt, max_new_tokens=9 * index + 1, seed=4, stream=index)))
            for _ in range(3):
                scheduler.step()
        while not scheduler.idle:
            scheduler.step()
        return [state.history for state in states]

    def talk(session: Session) -> list[list[int]]:
        ids, turns = TOKENIZER.encode("ab"), []
        for turn, n_tokens in enumerate((9, 14, 1, 30)):
            reply = session.stream(ids, max_new_tokens=n_tokens, turn=turn, sampler=PENALTIES, seed=4)
            assert "".join(reply) == reply.text
            turns.append(reply.ids)
            ids = [*ids, *reply.ids, *TOKENIZER.encode("ab")]
        return turns

    plain = scheduled(Scheduler(gpt, TOKENIZER, max_batch=3)), talk(Session(gpt, TOKENIZER))
    speculative = SpeculativeScheduler(gpt, TOKENIZER, Periodic(), max_batch=3, compile=True)
    assert (scheduled(speculative), talk(Session(gpt, TOKENIZER, Periodic(), compile=True))) == plain
    assert max(form.width for form in calls if form.many) > 1
    assert max(form.width for form in calls if not form.many) > 1


def test_room_for_a_width() -> None:
    def cache_of(name: str, capacity: int, n_held: int = 9) -> Any:
        gpt = decoded_model(name, 64)
        cache = gpt.new_cache(1, capacity)
        gpt(torch.zeros(1, n_held, dtype=torch.long), cache=cache, last_only=True)
        return cache

    with torch.no_grad():
        assert has_room(cache_of("rotary", 17), 5, 8)
        assert not has_room(cache_of("rotary", 16), 5, 8)  # no entry may be written behind the end
        assert has_room(cache_of("recurrent", 40), 4, 4)
        assert not has_room(cache_of("recurrent", 40), 3, 4)  # the state would contain the fourth
        assert has_room(cache_of("window", 64), 3, 8)
        assert has_room(cache_of("window", 64, 20), 3, 4)
        assert not has_room(cache_of("window", 64, 20), 3, 8)  # the window of 5 tokens and those kept fill the buffer


def test_prompts_are_not_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    gpt, calls = decoded_model("rotary", 48), interpret_steps(monkeypatch)
    compiled = CompiledDecoding(gpt)
    cache = compiled.new_cache(1)
    with torch.no_grad():
        compiled(torch.tensor([[1]]), cache=cache, last_only=True)  # some states exist after the first call only
        compiled(torch.tensor([[2, 3]]), cache=cache, last_only=True)
        assert not calls
        compiled(torch.tensor([[4, 5]]), cache=cache)
    assert list(calls) == [StepForm(width=4)]


def test_steps_are_compiled_one_after_the_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gpt = decoded_model("rotary", 48)
    compiled, started = CompiledDecoding(gpt, Store(tmp_path / "decode")), list[int]()
    running = SimpleNamespace(poll=lambda: None)

    def start(self: Slot, _: GPT) -> None:
        started.append(self._form.width)
        self._workers.append(running)  # type: ignore[arg-type]

    monkeypatch.setattr(Slot, "_start", start)

    def verify(n_tokens: int) -> None:
        cache = compiled.new_cache(1)
        with torch.no_grad():
            gpt(torch.tensor([[1, 2]]), cache=cache, last_only=True)
            compiled(torch.ones(1, n_tokens, dtype=torch.long), cache=cache)

    for n_tokens in (3, 1, 7):
        verify(n_tokens)
    assert started == [1]  # first the step of plain decoding
    compiled._slots[ONE_TOKEN].step = interpreted(gpt)
    verify(3)
    assert started == [1]  # another process is compiling
    compiled._workers.clear()
    for n_tokens in (3, 7):
        verify(n_tokens)
    assert started == [1, 4]
    # A wider step that is ready verifies until the narrow one is.
    compiled._slots[StepForm(width=8)].step = interpreted(gpt, StepForm(width=8))
    cache = compiled.new_cache(1)
    with torch.no_grad():
        gpt(torch.tensor([[1, 2]]), cache=cache, last_only=True)
        step = compiled._step(torch.ones(1, 3, dtype=torch.long), cache, last_only=False)
    assert step is compiled._slots[StepForm(width=8)].step


@pytest.mark.parametrize("form", [StepForm(many=True), StepForm(width=4)])
def test_packed_matrices_are_inputs_with_usual_strides(form: StepForm) -> None:
    model = small_preset("modern")
    apply_precision(model, BF16Spec())
    traced = trace(model, form)
    graph, _ = prepare(traced.program, traced.sources)
    products = [node for node in graph.graph.nodes if node.target is torch.ops.gptkit.packed_linear.default]
    assert products
    for node in products:
        value = node.args[1].meta["val"]
        assert value.stride() == (value.shape[1], 1)


@NEEDS_COMPILER
@pytest.mark.parametrize(
    "form",
    [
        pytest.param(StepForm(many=True, width=4), marks=pytest.mark.slow),
        pytest.param(StepForm(many=True), marks=pytest.mark.nightly),
        pytest.param(StepForm(width=4), marks=pytest.mark.nightly),
    ],
    ids=str,
)
def test_compiled_step_in_bf16_equals_the_eager_one(form: StepForm, tmp_path: Path) -> None:
    model = small_preset("modern")
    apply_precision(model, BF16Spec())
    assert CompiledDecoding(model, Store(tmp_path / "decode")).wait(form)  # which compares their logits


class Likely(DrafterSpec):
    """Drafter for the test below: the likeliest or the least likely tokens of a table."""

    name: Literal["likely"] = "likely"
    table: tuple[int, ...]

    def build(self, context: DrafterContext) -> Drafter:
        return LikelyDrafter(self.table)


class LikelyDrafter(Drafter):
    def __init__(self, table: tuple[int, ...]) -> None:
        self.table = table

    def propose(self, history: Sequence[int], limit: int) -> Sequence[int]:
        proposal = [history[-1]]
        for _ in range(min(limit, 3)):
            proposal.append(self.table[proposal[-1]])
        return proposal[1:]


@pytest.mark.nightly
@NEEDS_COMPILER
def test_compiled_speculation_draws_from_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chi-square of 20,000 draws."""
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path))
    size, n_texts, n_tokens = 6, 80, 250
    spec = {"d_model": 8, "n_layers": 1, "context_length": 256, "block": "pre-norm", "position": "none"}
    # Layers that return their input: the distribution of a token depends on the previous one only.
    spec |= {"attention": {"name": "multi-head", "n_heads": 1}, "feedforward": {"name": "mlp", "d_hidden": 8}}
    gpt = GPT(spec, vocab_size=size).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in gpt.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
            if name.startswith("blocks.") and parameter.ndim == 2:
                parameter.zero_()
        p_VV = gpt(torch.arange(size)[:, None]).logits[:, 0].softmax(-1)
    for form in (ONE_TOKEN, StepForm(width=4)):
        assert decoding_model(gpt, compile=True).wait(form)
    for best in (p_VV.argmax(-1), p_VV.argmin(-1)):
        drafter = Likely(table=tuple(best.tolist()))
        results: list[Generated] = []
        for index in range(n_texts):
            options: dict[str, Any] = {"max_new_tokens": n_tokens, "stop_ids": (), "seed": index}
            results += generate(gpt, Bytes(), [[index % size]], drafter=drafter, compile=True, **options)
        assert_drawn_from(p_VV, [[*result.prompt_ids, *result.ids] for result in results], n_texts * n_tokens)
        assert results[0].timings.drafted_tokens > 100


@pytest.mark.nightly
@NEEDS_COMPILER
def test_compiled_speculation_gives_the_texts_of_plain_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path))
    gpt = decoded_model("alibi", 256)
    for form in (ONE_TOKEN, StepForm(width=4)):
        assert decoding_model(gpt, compile=True).wait(form)
    options: dict[str, Any] = {"max_new_tokens": 200, "stop_ids": (), "sampler": "greedy"}
    expected = generate(gpt, TOKENIZER, "to be, to be, to", **options)
    drafted = generate(gpt, TOKENIZER, "to be, to be, to", drafter=NgramSpec(k=3, min_n=1), compile=True, **options)
    assert texts(drafted) == texts(expected)
    assert decoding_model(gpt, compile=True).ready(StepForm(width=4))
