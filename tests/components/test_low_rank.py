"""Low-rank adapters: formula, base weights, training, merge and export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import gptkit
from gptkit.components.linear.low_rank import LowRankSpec
from gptkit.core.errors import SpecError
from gptkit.kinds.context import BuildContext
from gptkit.model.gpt import GPT
from gptkit.nn.freezing import adapter_names

MODEL: dict[str, Any] = {
    "d_model": 16,
    "n_layers": 2,
    "context_length": 16,
    "vocab_size": 300,
    "position": "rotary",
    "norm": "rms",
    "attention": {"name": "grouped-query", "n_heads": 2, "n_kv_heads": 1},
    "feedforward": "gated",
    "head": {"tied": True},
}
LOW_RANK = {"name": "low-rank", "rank": 2, "alpha": 6}


def spec(linear: Any = "dense", **training: Any) -> dict[str, Any]:
    base = {"steps": 3, "batch_size": 2, "evaluate_every": None, "evaluate_batches": 1, "sample_tokens": 0, "device": "cpu"}
    optimizer = {"name": "adamw", "learning_rate": 0.02}
    training = {**base, "precision": "fp32", "optimizer": optimizer, "schedule": "constant", **training}
    return {"tokenizer": {"name": "bpe", "vocab_size": 300}, "model": {**MODEL, "linear": linear}, "training": training}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> gptkit.Run:
    return gptkit.train(spec(), tmp_path_factory.mktemp("runs") / "base", progress=False)


@pytest.fixture(scope="module")
def tuned(base: gptkit.Run) -> gptkit.Run:
    given = spec(LOW_RANK, init_from=str(base.directory))
    return gptkit.train(given, base.directory.parent / "tuned", progress=False)


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.randint(300, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        result: torch.Tensor = model.eval()(ids).logits
    return result


def test_low_rank_equals_the_papers_formula() -> None:
    linear = LowRankSpec(rank=3, alpha=5).build(BuildContext(8, 4, 1), d_in=6, d_out=4, bias=True)
    a, b = torch.randn(3, 6), torch.randn(4, 3)
    with torch.no_grad():
        linear.lora_a.copy_(a)
        linear.lora_b.copy_(b)
    x = torch.randn(7, 6)
    expected = x @ linear.weight.T + linear.bias + 5 / 3 * (x @ a.T) @ b.T
    assert torch.allclose(linear(x), expected, atol=1e-6)
    assert torch.allclose(linear.transformed_weight(), linear.weight + 5 / 3 * b @ a, atol=1e-6)


def test_initial_model_equals_the_dense_model() -> None:
    dense, adapted = gptkit.build(spec()), gptkit.build(spec(LOW_RANK))
    assert torch.equal(logits(dense), logits(adapted))
    assert {name for name, _ in adapted.named_parameters()} - adapter_names(adapted) == dict(dense.named_parameters()).keys()


def test_training_loads_the_base_and_changes_the_adapters_only(base: gptkit.Run, tuned: gptkit.Run) -> None:
    adapters = adapter_names(tuned.model)
    assert len(adapters) == 2 * 2 * 4  # qkv, output, the packed gate and up-projection, down, in two layers
    for name, parameter in tuned.model.named_parameters():
        if name in adapters:
            assert parameter.abs().max() > 0, name
        else:
            assert torch.equal(parameter, base.model.get_parameter(name)), name
    assert not torch.allclose(logits(base.model), logits(tuned.model), atol=1e-3)
    assert torch.equal(logits(tuned.model), logits(gptkit.load(tuned.directory).model))


def test_resumed_run_equals_an_uninterrupted_one(base: gptkit.Run, tuned: gptkit.Run, tmp_path: Path) -> None:
    given = spec(LOW_RANK, init_from=str(base.directory), steps=2)
    gptkit.train(given, tmp_path / "run", progress=False)
    assert torch.equal(
        logits(gptkit.resume(tmp_path / "run", ["training.steps=3"], progress=False).model), logits(tuned.model)
    )


def test_patterns_select_projections(base: gptkit.Run, tmp_path: Path) -> None:
    linear = {**LOW_RANK, "projections": ["blocks.*.attention.qkv", "blocks.1.feedforward"]}
    model = gptkit.build(spec(linear))
    owners = {name.rpartition(".")[0] for name in adapter_names(model)}
    assert {"blocks.0.attention.qkv", "blocks.1.attention.qkv"} <= owners
    assert {owner for owner in owners if owner.startswith("blocks.0")} == {"blocks.0.attention.qkv"}
    assert not any("output" in owner for owner in owners)
    run = gptkit.train(spec(linear, init_from=str(base.directory)), tmp_path / "run", progress=False)
    assert torch.allclose(logits(run.model), logits(run.merged().model), atol=1e-5)


def test_explicit_patterns_train_more_than_the_adapters(base: gptkit.Run, tmp_path: Path) -> None:
    freeze = ["*", "!*.lora_?", "!*norm*"]
    run = gptkit.train(spec(LOW_RANK, init_from=str(base.directory), freeze=freeze), tmp_path / "run", progress=False)
    changed = {name for name, p in base.model.named_parameters() if not torch.equal(p, run.model.get_parameter(name))}
    assert changed == {name for name, _ in base.model.named_parameters() if "norm" in name}
    assert run.merged().spec.training.freeze is None


def test_merged_model_is_dense_with_equal_logits(tuned: gptkit.Run, tmp_path: Path) -> None:
    expected = logits(tuned.model)
    merged = tuned.merged()
    assert merged.spec.model.linear.name == "dense"
    assert not adapter_names(merged.model)
    assert torch.allclose(logits(merged.model), expected, atol=1e-5)
    saved = gptkit.load(merged.save(tmp_path / "merged"))
    assert torch.allclose(logits(saved.model), expected, atol=1e-5)
    assert torch.equal(logits(tuned.model), expected)  # unchanged
    assert merged.merged() is merged


@pytest.mark.parametrize("suffix", ["", ".gguf"])
def test_export_contains_the_merged_weights(tuned: gptkit.Run, tmp_path: Path, suffix: str) -> None:
    to = {"name": "gguf", "type": "f32"} if suffix else None
    path = gptkit.export_model(tuned.directory, tmp_path / f"exported{suffix}", to=to)
    back = gptkit.import_model(path, tmp_path / "back")
    assert back.spec.model.linear.name == "dense"
    assert torch.allclose(logits(back.model), logits(tuned.model), atol=1e-5)


def test_transformers_computes_the_logits_of_an_export(tuned: gptkit.Run, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    path = gptkit.export_model(tuned.directory, tmp_path / "exported")
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    assert torch.allclose(logits(model), logits(tuned.model), atol=1e-5)


@pytest.mark.parametrize(
    ("linear", "model", "message"),
    [
        ({"projections": ["*.qvk"]}, {}, r"model\.linear\.projections\.0.*'\*\.qvk' matches no projection"),
        (
            {},
            {"feedforward": "experts"},
            r"matches blocks\.0\.feedforward\.experts\S*, but stacked experts cannot",
        ),
    ],
)
def test_patterns_without_a_projection_are_refused(linear: dict[str, Any], model: dict[str, Any], message: str) -> None:
    given = spec({**LOW_RANK, **linear})
    given["model"] |= model
    with pytest.raises(SpecError, match=message):
        gptkit.build(given)


def test_a_mixture_has_adapters_in_its_attention(tmp_path: Path) -> None:
    mixture = {"feedforward": {"name": "experts", "n_experts": 2, "router": {"name": "softmax-top-k", "k": 1}}}
    dense, given = spec(steps=1), spec({**LOW_RANK, "projections": ["blocks.*.attention"]})
    dense["model"] |= mixture
    given["model"] |= mixture
    run = gptkit.train(dense, tmp_path / "base", progress=False)
    given["training"]["init_from"] = str(run.directory)
    tuned = gptkit.train(given, tmp_path / "run", progress=False)
    assert {name.split(".")[2] for name in adapter_names(tuned.model)} == {"attention"}
    assert torch.allclose(logits(tuned.model), logits(tuned.merged().model), atol=1e-5)


def test_adapters_of_tied_parts_and_layer_patterns_merge() -> None:
    layers = [{"linear": {**LOW_RANK, "rank": 4}}, {"linear": "dense"}]
    model = GPT({**MODEL, "layers": layers})
    assert {name.split(".")[1] for name in adapter_names(model)} == {"0"}
