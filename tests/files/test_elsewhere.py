"""Unknown keys that are fields of another section, or other programs' names of fields."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from gptkit.core.errors import SpecError
from gptkit.core.registry import default_registry
from gptkit.core.registry.other_names import FILE, other_names, own_name, remark
from gptkit.runs.opening import open_spec

MODEL = {"model": {"context_length": 16, "d_model": 16, "n_layers": 1}}


def message(override: str) -> str:
    with pytest.raises(SpecError) as caught:
        open_spec(MODEL, [override])
    [problem] = caught.value.problems
    return problem.message


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("training.lr=1e-3", "'training.optimizer.learning_rate'"),
        ("lr=1e-3", "'training.optimizer.learning_rate'"),
        ("training.learning-rate=1e-3", "'training.optimizer.learning_rate'"),
        ("training.wd=0", "'training.optimizer.weight_decay'"),
        ("training.weight_decay=0", "'training.optimizer.weight_decay'"),
        ("model.n_heads=4", "'model.attention.n_heads'"),
        ("model.num_heads=4", "'model.attention.n_heads'"),
        ("steps=10", "'training.steps'"),
        ("max_iters=10", "'training.steps'"),
        ("model.batch=4", "'training.batch_size'"),
        ("optimizer=adamw", "'training.optimizer'"),
        ("training.optim=adafactor", "'optimizer'"),
        ("training.lr_scheduler_type=cosine", "'schedule'"),
        ("training.warmup=4", "'training.schedule.warmup_steps'"),
        ("model.layers=[{n_heads: 4}]", "'model.layers.0.attention.n_heads'"),
        ("training.optimizer.warmup_steps=4", "'training.schedule.warmup_steps'"),
        # names of fields of the same section
        ("training.batch=4", "'batch_size'"),
        ("model.n_layer=4", "'n_layers'"),
        ("model.hidden_size=4", "'d_model'"),
        ("model.theta=1e5", "'model.position.base'"),
        ("model.rope_theta=1e5", "'model.position.base'"),
        ("model.rms_norm_eps=1e-6", "'model.norm.eps'"),
        ("model.hidden_act=silu", "'model.feedforward.activation'"),
        ("model.attention.n_head=4", "'n_heads'"),
        ("training.optimizer.lr=1", "'learning_rate'"),
        # errors of spelling
        ("trainig.steps=1", "'training'"),
        ("training.step=1", "'steps'"),
    ],
)
def test_unknown_key_names_the_field(override: str, meant: str) -> None:
    assert f"; did you mean {meant}? (" in message(override)


def test_several_sections_with_the_field_are_listed() -> None:
    remedy = message("model.dropout=0.1").partition("did you mean ")[2].partition("?")[0]
    assert "'model.attention.dropout'" in remedy
    assert " or " in remedy


def test_fields_of_the_chosen_component_are_searched() -> None:
    muon = {**MODEL, "training": {"optimizer": "muon", "momentum": 0.9}}
    with pytest.raises(SpecError, match=r"did you mean 'training\.optimizer\.momentum'\?"):
        open_spec(muon)
    assert "did you mean" not in message("training.momentum=0.9")


def test_another_component_with_the_field_comes_before_other_sections() -> None:
    assert "'experts' has it: set model.feedforward.name too" in message("model.feedforward.n_experts=4")


def test_key_of_a_file_is_located(tmp_path: Path) -> None:
    file = tmp_path / "gpt.yaml"
    file.write_text("model: {context_length: 16, d_model: 16, n_layers: 1}\nlr: 1e-3\n")
    with pytest.raises(SpecError, match=r"did you mean 'training\.optimizer\.learning_rate'") as caught:
        open_spec(file)
    [problem] = caught.value.problems
    assert (problem.line, problem.column) == (2, 1)


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("training.schedule=cosine_with_restarts", "cosine-restarts"),
        ("training.schedule=inverse_sqrt", "inverse-sqrt"),
        ("training.schedule=CosineAnnealingLR", "cosine"),
        ("training.schedule=constant_with_warmup", "constant"),
        ("training.schedule=warmup_stable_decay", "wsd"),
        ("training.optimizer=adamw_torch_fused", "adamw"),
        ("training.optimizer=lion_8bit", "lion"),
        ("training.optimizer=schedule-free-adamw", "schedule-free"),
        ("training.optimizer=paged-ademamix-8bit", "ademamix"),
        ("training.optimizer=adafacter", "adafactor"),
        ("model.attention=MultiHeadAttentionWrapper", "stacked-heads"),
        ("model.attention=SelfAttention_v2", "single-head"),
        ("model.position=RoPE", "rotary"),
        ("model.norm=nn.LayerNorm", "layer"),
        ("model.feedforward=SwiGLU", "gated"),
        ("model.feedforward={name: mlp, activation: NewGELU}", "gelu-tanh"),
        ("model.block=TransformerBlock", "pre-norm"),
        ("model.head=lm_head", "linear"),
        ("tokenizer=sentencepiece", "hugging-face"),
    ],
)
def test_component_is_suggested_for_the_name_of_another_program(override: str, meant: str) -> None:
    assert f"; did you mean {meant!r}? (registered: " in message(override)


def test_fields_that_a_name_implies_are_named() -> None:
    assert "did you mean 'grouped-query', with n_kv_heads: 1? (registered: " in message("model.attention=MQA")
    assert "did you mean 'gated', with activation: gelu? (registered: " in message("model.feedforward=GeGLU")
    named = {(kind, other) for kind, names in other_names().items() for others in names.values() for other in others}
    remarks = [tuple(key.split()) for key in tomllib.loads(FILE.read_text())["remarks"]]
    assert set(remarks) <= named
    assert all(remark(kind, other) for kind, other in remarks)


def test_every_other_name_is_that_of_a_registered_component() -> None:
    registry = default_registry()
    for kind, names in other_names().items():
        assert not names.keys() - set(registry.names(kind)), kind
        others = [other for each in names.values() for other in each]
        assert len(others) == len(set(others))
        assert not set(others) & set(registry.names(kind))
        assert all(own_name(kind, other, registry.names(kind)) is not None for other in others)
