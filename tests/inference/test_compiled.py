"""Compiled decode steps: the numbers of eager decoding, for every preset; the cache on disk; what cannot be compiled."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.components.precision.int8 import Int8Spec
from gptkit.core.paths import cache_directory
from gptkit.inference.compiled.decoding import CompiledDecoding
from gptkit.inference.compiled.form import ONE_TOKEN, StepForm
from gptkit.inference.compiled.key import step_key
from gptkit.inference.compiled.slot import Slot
from gptkit.inference.compiled.store import Store
from gptkit.inference.compiled.trace import trace
from gptkit.inference.compiled.worker import prepare
from gptkit.inference.generation import generate
from gptkit.inference.simple import generate_simple
from gptkit.model.gpt import GPT
from gptkit.model.packing import apply_precision
from gptkit.presets.catalog import shipped
from tests.support.doubling import Doubling
from tests.support.fakes import Bytes
from tests.support.presets import SMALL, V, marked, small_preset
from tests.support.traced_steps import interpreted

TOKENIZER = Bytes()
PRESETS = sorted(name for name in shipped() if not name.startswith("finetune"))
FAST = {"gpt2", "modern", "gemma3-1b", "deepseek-v3", "gpt-oss-20b", "bloom-560m", "llama4-scout", "qwen3-next-80b-a3b"}
BY_LENGTH = {"internlm3-8b", "phi3.5-moe", "phi4-mini"}
"""Positions that change with the length of the text: what was cached is computed again, and always eagerly."""

NEEDS_COMPILER = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="needs a C++ compiler")


def stepped(decoding: CompiledDecoding) -> Callable[[Tensor, Any], Tensor]:
    """Return a function that computes the logits, as a step does."""

    def step(ids_BT: Tensor, cache: Any) -> Tensor:
        logits_BTV = decoding(ids_BT, cache=cache, last_only=True).logits
        assert logits_BTV is not None
        return logits_BTV

    return step


def eager(model: GPT, ids_B1: Tensor, cache: Any) -> Tensor:
    logits: Tensor = model(ids_B1, cache=cache, last_only=True).logits[:, -1]
    return logits


@torch.no_grad()
def compare(model: GPT, step: Any, padding: list[int], n_tokens: int, *, capacity: int = 128) -> None:
    """Decode greedily with both; equal tokens, equal logits."""
    rows = len(padding)
    ids_BT = torch.randint(V, (rows, 9), generator=torch.Generator().manual_seed(0))
    left = torch.tensor(padding) if any(padding) else None
    caches = [model.new_cache(rows, capacity, left_padding_B=left) for _ in range(2)]
    chosen = [eager(model, ids_BT, cache).argmax(-1) for cache in caches]
    for _ in range(n_tokens):
        expected = eager(model, chosen[0][:, None], caches[0])
        actual = step(chosen[1][:, None], caches[1])[:, -1]
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
        chosen = [expected.argmax(-1), actual.argmax(-1)]
        assert torch.equal(*chosen)
    assert caches[0].length == caches[1].length == 9 + n_tokens
    # The eager step continues where the compiled one ended.
    torch.testing.assert_close(
        eager(model, chosen[0][:, None], caches[1]), eager(model, chosen[0][:, None], caches[0]), atol=1e-4, rtol=1e-4
    )


def n_steps(model: GPT) -> int:
    """Return a number of tokens to decode: more than a small window holds, so that it slides, or fewer without one."""
    return 70 if f'"window":{SMALL["window"]}' in model.spec.model_dump_json() else 16


@pytest.mark.parametrize("preset", marked(PRESETS, FAST, turn=0, of=6))
def test_traced_step_of_one_row_equals_the_eager_one(preset: str) -> None:
    model = small_preset(preset, each=2 if preset in FAST else 1)
    if not model.new_cache(1).is_plain:
        assert preset in BY_LENGTH
        return
    compare(model, interpreted(model), [0], n_steps(model))


@pytest.mark.parametrize("preset", marked(PRESETS, turn=2, of=6))
def test_traced_step_of_uneven_rows_equals_the_eager_one(preset: str) -> None:
    model = small_preset(preset, each=1)
    if not model.new_cache(1).is_plain:
        return
    step = interpreted(model, StepForm(many=True))
    compare(model, step, [0, 3, 5], n_steps(model))
    compare(model, step, [0, 2, 4, 1, 0], 3)  # another number of rows, with the same graph


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["modern", "gemma3-1b", "qwen3-next-80b-a3b"])
def test_traced_step_takes_any_number_of_rows_and_any_capacity(preset: str) -> None:
    model = small_preset(preset)
    step = interpreted(model, StepForm(many=True))
    for padding, capacity in (([0, 3], 40), ([0, 0, 0, 2, 7], 200), ([1, 0, 2], 33)):
        compare(model, step, padding, 12, capacity=capacity)


def test_traced_step_holds_no_weights() -> None:
    model = small_preset("gpt2")
    step = interpreted(model)
    other = GPT(model.spec, V, seed=11).eval()
    with pytest.raises(AssertionError):
        compare(other, step, [0], 1)
    traced = trace(model, ONE_TOKEN)
    assert not traced.program.state_dict
    names = {source[1] for source in traced.sources if source[0] == "weight"}
    assert names == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("many", [False, True])
def test_traced_step_of_a_model_in_8_bits_equals_the_eager_one(many: bool) -> None:
    model = small_preset("modern")
    apply_precision(model, Int8Spec(activations="fp32"))
    compare(model, interpreted(model, StepForm(many=many)), [0, 3] if many else [0], 20)


def test_loops_over_keys_compute_no_angles() -> None:
    traced = trace(small_preset("modern"), ONE_TOKEN)
    graph, _ = prepare(traced.program, traced.sources)
    cosines = [node for node in graph.graph.nodes if node.target is torch.ops.aten.cos.default]
    assert cosines
    for node in cosines:
        assert [user.target for user in node.users] == [torch.ops.gptkit.stored.default]
    products = [node for node in graph.graph.nodes if node.target is torch.ops.aten.sum.dim_IntList]
    assert products
    for node in products:
        operands = [operand for operand in node.args[0].args if operand.op != "placeholder"]
        assert any(_source_of(operand).target is torch.ops.gptkit.stored.default for operand in operands)


def _source_of(node: Any) -> Any:
    """The node of which this one is a view or a conversion."""
    while node.target is not torch.ops.gptkit.stored.default and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return node


def test_step_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that was waited for is still the one after the first cache was made."""
    made: list[Any] = []

    class Loaded:
        step = object()

        def __init__(self, *_: Any) -> None:
            made.append(self)

        def wait(self) -> None: ...

    monkeypatch.setattr("gptkit.inference.compiled.decoding.Slot", Loaded)
    model = small_preset("gpt2")
    decoding = CompiledDecoding(model)
    assert decoding.wait()
    decoding.new_cache(1)
    assert decoding.ready()
    assert len(made) == 1


def test_experts_in_a_precision_are_decoded_eagerly(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    model = small_preset("gpt-oss-20b")
    apply_precision(model, Int8Spec(activations="fp32"))
    with caplog.at_level(logging.WARNING, "gptkit"):
        assert not CompiledDecoding(model, Store(tmp_path / "decode")).wait()
    assert "experts with packed matrices" in caplog.text


def test_keys_differ_where_the_code_would() -> None:
    model = small_preset("gpt2")
    forms = [ONE_TOKEN, StepForm(many=True), StepForm(width=4), StepForm(keeps_hidden=True)]
    keys = {step_key(model, form) for form in forms}
    keys.add(step_key(small_preset("modern"), ONE_TOKEN))
    keys.add(step_key(GPT(model.spec, V, dtype=torch.bfloat16), ONE_TOKEN))
    assert len(keys) == 6
    assert step_key(GPT(model.spec, V, seed=5), ONE_TOKEN) == step_key(model, ONE_TOKEN)


def test_cache_directory_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path / "here"))
    assert cache_directory() == tmp_path / "here"
    monkeypatch.delenv("GPTKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory().name.lower() in ("gptkit", "cache")


def finished(store: Store, key: str) -> Path:
    work = store.begin(key)
    assert work is not None
    (work / "inputs.json").write_text("[]")
    entry = store.finish(key, work)
    assert entry is not None
    return entry


def test_store_lets_one_process_compile_a_key(tmp_path: Path) -> None:
    store = Store(tmp_path / "decode")
    work = store.begin("k")
    assert work is not None
    assert store.begin("k") is None
    assert store.find("k") is None
    assert store.finish("k", work) is None  # nothing was compiled
    assert finished(store, "k") == store.find("k")
    assert sorted(path.name for path in store.directory.iterdir()) == ["k"]


def test_store_keeps_the_entries_used_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptkit.inference.compiled.store._KEPT", 2)
    store = Store(tmp_path / "decode")
    keys = [letter * 32 for letter in "abc"]
    for age, key in zip((300, 200), keys, strict=False):
        os.utime(finished(store, key), (time.time() - age,) * 2)
    own = store.directory / "mine"  # a directory of the user, who chose GPTKIT_CACHE
    own.mkdir()
    (own / "inputs.json").touch()
    os.utime(own, (time.time() - 9000,) * 2)
    (store.directory / "draft.part").mkdir()
    os.utime(store.directory / "draft.part", (time.time() - 9000,) * 2)
    assert store.find(keys[0]) is not None  # used now
    finished(store, keys[2])
    assert [key[0] for key in keys if store.find(key)] == ["a", "c"]
    assert (own / "inputs.json").is_file()
    assert (store.directory / "draft.part").is_dir()


@pytest.mark.parametrize("damage", ["changed", "cut", "missing", "no sums"])
def test_damaged_entry_is_removed_and_compiled_again(tmp_path: Path, damage: str) -> None:
    """Machine code is executed, so what a power failure has left of it must not be loaded."""
    store = Store(tmp_path / "decode")
    for content in (b"machine code", b"other code"):
        work = store.begin("k")
        assert work is not None
        (work / "inputs.json").write_text("[]")
        (work / "step.so").write_bytes(content)
        entry = store.finish("k", work)
        assert entry is not None
        assert (entry / "step.so").read_bytes() == content
        assert store.find("k") == entry
        match damage:
            case "changed":
                (entry / "step.so").write_bytes(b"\0" * len(content))
            case "cut":
                (entry / "step.so").write_bytes(content[:3])
            case "missing":
                (entry / "step.so").unlink()
            case _:
                (entry / "sums.json").write_text("{}")
        assert store.find("k") is None
        assert not entry.exists()


def test_failed_compilation_is_tried_again_the_next_day(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.fail("k", "no compiler")
    assert store.failure("k") == "no compiler"
    os.utime(tmp_path / "k.failed", (time.time() - 90_000,) * 2)
    assert store.failure("k") is None


def test_lock_of_a_killed_process_expires(tmp_path: Path) -> None:
    store = Store(tmp_path / "decode")
    assert store.begin("k") is not None
    os.utime(store.directory / "k.lock", (time.time() - 7200,) * 2)
    assert store.begin("k") is not None


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="permissions of POSIX")
def test_code_that_others_could_write_is_not_run(tmp_path: Path) -> None:
    store = Store(tmp_path / "decode")
    entry = finished(store, "k")
    entry.chmod(0o777)
    assert store.find("k") is None
    entry.chmod(0o700)
    store.directory.chmod(0o777)
    assert store.find("k") is None
    with pytest.raises(PermissionError):
        store.begin("other")


def test_what_cannot_be_compiled_is_computed_eagerly_with_one_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise NotImplementedError("this component reads numbers")

    monkeypatch.setattr("gptkit.inference.compiled.trace.trace", refuse)
    model, store = small_preset("gpt2"), Store(tmp_path / "decode")
    ids_BT = torch.tensor([[1, 2, 3]])
    expected = generate_simple(model, ids_BT, 5)
    for _ in range(2):
        decoding = CompiledDecoding(model, store)
        with caplog.at_level(logging.WARNING, "gptkit"):
            cache, ids, actual = decoding.new_cache(1), ids_BT, ids_BT
            for _ in range(5):
                ids = stepped(decoding)(ids, cache)[:, -1].argmax(-1, keepdim=True)
                actual = torch.cat((actual, ids), dim=1)
        assert torch.equal(actual, expected)
        assert not decoding.ready()
    # One note for each of the two; the second does not try again.
    assert [record.message.endswith("NotImplementedError: this component reads numbers") for record in caplog.records] == [
        True,
        True,
    ]


def test_static_caches_and_prefixes_are_decoded_eagerly(tmp_path: Path) -> None:
    model = small_preset("gpt2")
    assert not model.new_cache(1, static=True).is_plain
    assert not model.new_cache(1, prefix_B=torch.tensor([2])).is_plain
    assert model.new_cache(1).is_plain


COMPILED = ["gpt2", "modern", "gemma3-1b", "qwen3-0.6b", "deepseek-v3", "gpt-oss-20b", "qwen3-next-80b-a3b"]
IN_CI = {("qwen3-next-80b-a3b", False)}
"""Of them, what CI compiles: half a minute. The others are compiled at night; the test below compiles "gemma3-1b"."""


@NEEDS_COMPILER
@pytest.mark.parametrize(
    ("preset", "many"),
    [
        pytest.param(preset, many, marks=pytest.mark.slow if (preset, many) in IN_CI else pytest.mark.nightly)
        for preset in COMPILED
        for many in (False, True)
    ],
)
def test_compiled_step_equals_the_eager_one(
    preset: str, many: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_preset(preset)
    decoding = CompiledDecoding(model, Store(tmp_path / "decode"))
    assert decoding.wait(StepForm(many=many))

    compare(model, stepped(decoding), [0, 3, 5] if many else [0], 70)
    # Another model of this architecture loads the same code.
    monkeypatch.setattr(Slot, "_start", lambda *_: pytest.fail("the step is compiled a second time"))
    other = GPT(model.spec, V, seed=11).eval()
    again = CompiledDecoding(other, Store(tmp_path / "decode"))
    assert again.wait(StepForm(many=many))
    compare(other, stepped(again), [0, 1] if many else [0], 5)


@pytest.mark.slow
@NEEDS_COMPILER
def test_compiled_step_calls_operators_defined_in_python(tmp_path: Path) -> None:
    model = small_preset("gemma3-1b")
    model.final_norm = Doubling(model.final_norm)
    decoding = CompiledDecoding(model, Store(tmp_path / "decode"))
    assert decoding.wait(StepForm(many=True))
    compare(model, stepped(decoding), [0, 3, 5], 70)


@pytest.mark.slow
@NEEDS_COMPILER
def test_generation_switches_to_the_compiled_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path))
    tokenizer = TOKENIZER
    model = GPT({"d_model": 32, "n_layers": 2, "context_length": 512}, tokenizer.vocab_size, seed=1).eval()
    options: dict[str, Any] = {"max_new_tokens": 400, "sampler": "greedy", "stop_ids": (), "overflow": "slide"}
    expected = generate(model, tokenizer, "To be", **options)[0].ids
    assert generate(model, tokenizer, "To be", compile=True, **options)[0].ids == expected
    from gptkit.inference.compiled.decoding import decoding_model

    assert decoding_model(model, compile=True).wait()
    assert generate(model, tokenizer, "To be", compile=True, **options)[0].ids == expected
    # The weights change: what was packed is made again.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    changed = generate(model, tokenizer, "To be", **options)[0].ids
    assert generate(model, tokenizer, "To be", compile=True, **options)[0].ids == changed
