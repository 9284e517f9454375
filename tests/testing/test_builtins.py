"""Built-in components pass the checks of their kinds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from gptkit.components.tokenizer.byte import ByteSpec
from gptkit.core.component import Component
from gptkit.core.registry import default_registry
from gptkit.data import prepare
from gptkit.testing import KNOWN_FAILURES, instances, run_checks
from gptkit.testing.texts import CORPUS

CLASSES = [
    entry.cls
    for kind in default_registry().kinds()
    for entry in default_registry().entries(kind).values()
    if entry.plugin.built_in
]
HEADS = {"n_heads": 4, "d_head": 8}
MORE: list[tuple[str, dict[str, Any]]] = [
    ("attention", {"name": "multi-head", **HEADS, "window": 5, "qkv_bias": True, "sinks": True, "output_gate": True}),
    ("attention", {"name": "multi-head", **HEADS, "softcap": 5.0, "qk_norm": "rms", "qk_norm_order": "after"}),
    ("attention", {"name": "multi-head", **HEADS, "chunk": 6, "clip_qkv": 0.5, "dropout": 0.1}),
    ("attention", {"name": "grouped-query", **HEADS, "n_kv_heads": 2, "qk_norm": "rms", "qk_norm_width": "full"}),
    ("attention", {"name": "grouped-query", **HEADS, "n_kv_heads": 2, "output_gate": True, "gate_bias": True}),
    (
        "attention",
        {"name": "grouped-query", **HEADS, "n_kv_heads": 2, "reuse_kv": True, "qk_norm": "rms"},
    ),
    ("attention", {"name": "multi-head", **HEADS, "tie_kv": True, "v_norm": "rms", "qk_norm": "rms", "qkv_bias": True}),
    ("attention", {"name": "grouped-query", **HEADS, "n_kv_heads": 2, "kv_conv": 3, "relative_width": 3, "window": 6}),
    (
        "attention",
        {"name": "grouped-query", **HEADS, "n_kv_heads": 2, "kv_conv": 3, "kv_conv_form": "dynamic", "token_sinks": True},
    ),
    (
        "attention",
        {
            "name": "multi-head",
            **HEADS,
            "kv_conv": 2,
            "kv_conv_form": "scaled",
            "qk_norm": "l2-clip",
            "k_norm": {"name": "l2-clip", "scale": False},
            "qk_norm_width": "each-head",
            "relative_width": 3,
            "relative_norm": "l2-clip",
            "token_sinks": True,
            "sinks": True,
            "window": 6,
        },
    ),
    ("attention", {"name": "multi-head", **HEADS, "tie_kv": True, "kv_conv": 2, "relative_width": 2, "relative_extent": 7}),
    ("attention", {"name": "multi-head", **HEADS, "output_norm": "rms", "output_gate": True}),
    ("attention", {"name": "latent", "n_heads": 3, "kv_rank": 10, "q_rank": 7, "d_nope": 6, "d_rotary": 8, "d_value": 5}),
    (
        "attention",
        {"name": "latent", "n_heads": 2, "kv_rank": 10, "d_nope": 6, "d_rotary": 4, "sinks": True, "output_gate": True},
    ),
    ("block", {"name": "pre-norm", "dropout": 0.1, "residual_scale": 0.5}),
    (
        "attention",
        {"name": "sparse-latent", "n_heads": 2, "kv_rank": 10, "q_rank": 7, "d_nope": 6, "d_rotary": 4, "top_k": 14}
        | {"index_heads": 8, "d_index": 6, "query_latents": "both", "output_gate": True, "gate_input": "queries"},
    ),
    ("attention", {"name": "multi-head", **HEADS, "qk_norm": {"name": "gated", "rank": 3}}),
    ("block", {"name": "pre-norm", "attention_input_norm": False}),
    ("position", {"name": "rotary", "layout": "interleaved", "fraction": 0.5}),
    ("position", {"name": "rotary", "scaling": "proportional"}),
    ("position", {"name": "rotary", "reverse": True}),
    ("position", {"name": "rotary", "temperature": 0.5, "temperature_interval": 4}),
    ("position", {"name": "shaw", "max_distance": 5, "values": False}),
    ("position", {"name": "t5-bias", "n_buckets": 8, "max_distance": 20, "shared": False}),
    ("rotary-scaling", {"name": "dynamic", "original_context_length": 12}),
    ("rotary-scaling", {"name": "longrope", "long": (3.0,), "original_context_length": 12}),
    ("sampler", {"name": "min-length", "tokens": 4}),
    ("sampler", {"name": "repetition-penalty", "penalty": 1.3, "window": 6}),
    ("sampler", {"name": "top-p", "p": 0.4}),
    ("schedule", {"name": "wsd", "warmup_steps": 20, "decay": 0.5, "final": 0.1}),
    ("tokenizer", {"name": "char", "unknown": "error"}),
    ("tokenizer", {"name": "char", "unknown": "bytes", "special_tokens": ["<|user|>", "<|user|>!"]}),
]
"""Configurations that defaults and examples do not cover."""


FAMILIES = frozenset({"deepseek-v3", "gemma3", "gpt2", "granitemoehybrid", "llama", "qwen3-next"})
"""Families that the fast tests check; `tests/interop/test_parity.py` compares every family with transformers."""


def marks(spec: Component, number: int) -> list[pytest.MarkDecorator]:
    """Leave formats, most families, and a component's second example to CI, and half of the further ones to the night."""
    if spec.kind == "family":
        return [] if spec.name in FAMILIES else [pytest.mark.slow]
    if number == 0 and spec.kind != "format":
        return []
    return [pytest.mark.slow if number < 2 or number % 2 else pytest.mark.nightly]


def configured() -> list[Any]:
    cases = [(spec, marks(spec, number)) for cls in CLASSES for number, spec in enumerate(instances(cls))]
    more = [default_registry().component(kind, fields["name"]).model_validate(fields) for kind, fields in MORE]
    cases += [(spec, marks(spec, number)) for number, spec in enumerate(more, 1)]
    return [
        pytest.param(spec, id=f"{spec.kind}-{spec.name}-{number}", marks=marked)
        for number, (spec, marked) in enumerate(cases)
    ]


def failures(results: Any) -> list[str]:
    return [f"{result.component}: {result.check.name}: {result.message}" for result in results if not result.ok]


@pytest.mark.parametrize("spec", configured())
def test_built_in_component_passes_its_checks(spec: Component) -> None:
    results = run_checks(spec)
    assert not failures(results)
    if spec.kind == "family" and importlib.util.find_spec("transformers"):
        assert not [result.message for result in results if result.outcome == "skipped"], "its reference judges a family"


@pytest.mark.parametrize(
    "cls",
    [
        pytest.param(cls, marks=pytest.mark.slow if number % 3 == 0 else pytest.mark.nightly)
        for number, cls in enumerate(cls for cls in CLASSES if cls.kind == "family")
    ],
    ids=lambda cls: cls.component_name(),
)
def test_each_option_of_a_family_equals_the_reference(cls: type[Component]) -> None:
    pytest.importorskip("transformers")
    check = "each-option-equals-the-reference"
    (result,) = run_checks(cls.model_validate({"name": cls.component_name()}), slow=True, only=[check])
    assert result.outcome == "passed", result.message


def test_every_component_is_checked() -> None:
    without = {cls.component_name() for cls in CLASSES if not instances(cls)}
    assert without == {"hugging-face", "prepared"}, "give them examples, or a test of their own here"


def test_hugging_face_passes_its_checks(tmp_path: Path) -> None:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False, initial_alphabet=alphabet, special_tokens=["<|end|>"])
    core.train_from_iterator(CORPUS, trainer)
    core.save(str(tmp_path / "tokenizer.json"))
    cls = default_registry().component("tokenizer", "hugging-face")
    spec = cls.model_validate({"name": "hugging-face", "path": str(tmp_path), "end_token": "<|end|>"})
    results = run_checks(spec, expected_failures=KNOWN_FAILURES["tokenizer hugging-face"])
    assert not failures(results)
    assert [result.check.name for result in results if result.outcome == "expected"] == ["constructible"]


def test_prepared_passes_its_checks(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("a line of text\n" * 400, encoding="utf-8")
    source = default_registry().component("data", "text")
    corpus = source.model_validate({"name": "text", "path": str(tmp_path / "corpus.txt")})
    spec = ByteSpec()
    prepare(corpus, spec.fit(iter(())), tmp_path / "tokens", tmp_path, store=spec)
    cls = default_registry().component("data", "prepared")
    prepared = cls.model_validate({"name": "prepared", "path": str(tmp_path / "tokens")})
    results = run_checks(prepared, expected_failures=KNOWN_FAILURES["data prepared"])
    assert not failures(results)
    assert [result.check.name for result in results if result.outcome == "expected"] == ["constructible"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("attention", "multi-head"),
        ("attention", "latent"),
        ("position", "rotary"),
        ("position", "shaw"),
        ("position", "t5-bias"),
        ("norm", "rms"),
        ("feedforward", "gated"),
        ("block", "parallel"),
        ("head", "linear"),
    ],
)
def test_built_in_component_compiles(kind: str, name: str) -> None:
    (result,) = run_checks(instances(default_registry().component(kind, name))[0], slow=True, only=["compiles"])
    assert result.ok, result.message
