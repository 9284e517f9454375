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

from gptkit.inference.compiled.decoding import CompiledDecoding
from gptkit.inference.compiled.key import step_key
from gptkit.inference.compiled.step import CompiledStep
from gptkit.inference.compiled.store import Store, cache_directory
from gptkit.inference.compiled.trace import trace
from gptkit.inference.generation import generate
from gptkit.inference.simple import generate_simple
from gptkit.model.gpt import GPT
from gptkit.presets.catalog import shipped
from tests.support.fakes import Bytes
from tests.support.presets import V, small_preset

TOKENIZER = Bytes()
PRESETS = sorted(name for name in shipped() if not name.startswith("finetune"))
FAST = {"gpt2", "modern", "gemma3-1b", "deepseek-v3", "gpt-oss-20b", "bloom-560m", "llama4-scout", "qwen3-next-80b-a3b"}
BY_LENGTH = {"phi3.5-moe", "phi4-mini"}
"""Positions that change with the length of the text: what was cached is computed again, and always eagerly."""

NEEDS_COMPILER = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="needs a C++ compiler")


def interpreted(model: GPT, *, many: bool) -> CompiledStep:
    """The traced step, computed by torch operator by operator instead of compiled."""
    traced = trace(model, many=many)
    signature = traced.program.graph_signature
    by_name: dict[str, Any] = dict(zip(signature.user_inputs, traced.sources, strict=True))
    by_name |= {name: ("constant", target) for name, target in signature.inputs_to_lifted_tensor_constants.items()}
    graph = traced.program.graph_module
    sources = [by_name[node.name] for node in graph.graph.nodes if node.op == "placeholder"]
    return CompiledStep(model, sources, traced.constants, lambda inputs: graph(*inputs), {})


def stepped(decoding: CompiledDecoding) -> Callable[[Tensor, Any], Tensor]:
    """Return a function that computes the logits after the last token."""

    def step(ids_BT: Tensor, cache: Any) -> Tensor:
        logits_BTV = decoding(ids_BT, cache=cache, last_only=True).logits
        assert logits_BTV is not None
        return logits_BTV[:, -1]

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
        actual = step(chosen[1][:, None], caches[1])
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
        chosen = [expected.argmax(-1), actual.argmax(-1)]
        assert torch.equal(*chosen)
    assert caches[0].length == caches[1].length == 9 + n_tokens
    # The eager step continues where the compiled one ended.
    torch.testing.assert_close(
        eager(model, chosen[0][:, None], caches[1]), eager(model, chosen[0][:, None], caches[0]), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    "preset", [preset if preset in FAST else pytest.param(preset, marks=pytest.mark.slow) for preset in PRESETS]
)
def test_traced_step_of_one_row_equals_the_eager_one(preset: str) -> None:
    model = small_preset(preset)
    if not model.new_cache(1).is_plain:
        assert preset in BY_LENGTH
        return
    # More tokens than the small window holds, so that windows slide.
    compare(model, interpreted(model, many=False), [0], 70)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_traced_step_of_uneven_rows_equals_the_eager_one(preset: str) -> None:
    model = small_preset(preset)
    if not model.new_cache(1).is_plain:
        return
    step = interpreted(model, many=True)
    compare(model, step, [0, 3, 5], 70)
    compare(model, step, [0, 2, 4, 1, 0], 3)  # another number of rows, with the same graph


@pytest.mark.parametrize("preset", ["modern", "gemma3-1b", "qwen3-next-80b-a3b"])
def test_traced_step_takes_any_number_of_rows_and_any_capacity(preset: str) -> None:
    model = small_preset(preset)
    step = interpreted(model, many=True)
    for padding, capacity in (([0, 3], 40), ([0, 0, 0, 2, 7], 200), ([1, 0, 2], 33)):
        compare(model, step, padding, 12, capacity=capacity)


def test_traced_step_holds_no_weights() -> None:
    model = small_preset("gpt2")
    step = interpreted(model, many=False)
    other = GPT(model.spec, V, seed=11).eval()
    with pytest.raises(AssertionError):
        compare(other, step, [0], 1)
    traced = trace(model, many=False)
    assert not traced.program.state_dict
    names = {source[1] for source in traced.sources if source[0] == "weight"}
    assert names == {name for name, _ in model.named_parameters()}


def test_keys_differ_where_the_code_would() -> None:
    model = small_preset("gpt2")
    keys = {step_key(model, many=many) for many in (False, True)}
    keys.add(step_key(small_preset("modern"), many=False))
    keys.add(step_key(GPT(model.spec, V, dtype=torch.bfloat16), many=False))
    assert len(keys) == 4
    assert step_key(GPT(model.spec, V, seed=5), many=False) == step_key(model, many=False)


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
    for age, key in ((300, "a"), (200, "b")):
        os.utime(finished(store, key), (time.time() - age,) * 2)
    assert store.find("a") is not None  # used now
    finished(store, "c")
    assert [key for key in "abc" if store.find(key)] == ["a", "c"]


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
                ids = stepped(decoding)(ids, cache).argmax(-1, keepdim=True)
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


NO_OPERATORS = pytest.mark.xfail(
    reason="the library of a compiled step cannot call operators defined in Python, such as the grouped products of "
    "experts; such models are decoded eagerly",
    strict=True,
)


@pytest.mark.slow
@NEEDS_COMPILER
@pytest.mark.parametrize("preset", ["gpt2", "modern", "gemma3-1b", pytest.param("gpt-oss-20b", marks=NO_OPERATORS)])
@pytest.mark.parametrize("many", [False, True])
def test_compiled_step_equals_the_eager_one(preset: str, many: bool, tmp_path: Path) -> None:
    model = small_preset(preset)
    decoding = CompiledDecoding(model, Store(tmp_path / "decode"))
    assert decoding.wait(many=many)

    compare(model, stepped(decoding), [0, 3, 5] if many else [0], 70)
    # Another model of this architecture loads the same code within seconds.
    other = GPT(model.spec, V, seed=11).eval()
    again, began = CompiledDecoding(other, Store(tmp_path / "decode")), time.monotonic()
    assert again.wait(many=many)
    assert time.monotonic() - began < 5
    compare(other, stepped(again), [0, 1] if many else [0], 5)


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
