"""The spec builder in a browser: its results equal those of gptkit."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from gptkit.core.errors import SpecError
from gptkit.core.registry import Registry, default_registry
from gptkit.diagrams.drawing import svg
from gptkit.docs.spec_builder import assets, page
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.runs.opening import open_spec
from gptkit.runs.spec import spec_outline
from tests.support.browser import browser_page
from tests.support.command_line import caller
from tests.support.plugin_registry import registry_of

COUNTED = (
    "tiny",
    "gpt2",
    "book",
    "gemma3-1b",
    "deepseek-v2-lite",
    "bamba-9b",
    "opt-350m",
    "lfm2-1.2b",
    "bloom-560m",
    "gemma3n-e4b",
    "gemma4-e2b",
    "hrm-text-1b",
    "hy4-preview",
    "finetune-low-rank",
    "zamba2-2.7b",
)

GROUPED = {"name": "grouped-query", "n_heads": 4, "d_head": 4}
# A spec with one error each, and the paths that the error has.
WRONG: list[dict[str, Any]] = [
    {"d_model": 0},
    {"d_model": "wide"},
    {"n_layers": 2.5},
    {"attention": {"name": "multi-head", "n_heads": 7}},
    {"attention": {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 3}},
    {"attention": {"name": "multi-head", "n_heads": 4, "d_head": 5}},
    {"attention": "gated-delta"},
    {"attention": {"name": "mamba1", "d_inner": 20, "n_heads": 3}, "position": "none"},
    {"attention": {"name": "multi-head", "n_heads": 4, "qk_norm": "gated", "qk_norm_width": "each-head"}},
    {"position": "alibi", "attention": "latent", "norm": {"name": "rms", "eps": -1}},
    {"position": {"name": "learned", "size": 8}},
    {"feedforward": {"name": "gated", "expansion": 2, "d_hidden": 64}},
    {"feedforward": {"name": "experts", "n_experts": 2, "router": {"name": "softmax-top-k", "k": 4}}},
    {"vocab_size": 100},
    {"norm": "batch"},
    {"norm": {"name": "rms", "epsilon": 1e-6}},
    {"attention": {"name": "multi-head", "softcap": 30.0}, "attention_backend": "sdpa"},
    {"attention": {"name": "multi-head", "relative_width": 4}, "attention_backend": "flex"},
    {"layers": [{"position": "learned"}, {}]},
    {"attention": {"name": "multi-head", "n_heads": 4, "d_value": 4, "tie_kv": True}},
    {"attention": {"name": "multi-head", "n_heads": 4, "d_value": 4}, "position": {"name": "shaw", "values": True}},
    {"head": {"name": "multi-token", "block": "altup"}},
    {"head": {"name": "multi-token", "block": "per-layer-embedding"}},
    {"head": {"name": "multi-token", "block": "engram"}},
    {"block": {"name": "engram", "d_embedding": 24, "heads": 5}},
    {"block": {"name": "hierarchical", "gradient_cycles": [1, 2, 3]}},
    {"block": {"name": "hierarchical", "gradient_cycles": [4]}},
    {"block": {"name": "hierarchical", "gradient_cycles": [1], "start": "learned"}},
    {"block": "hierarchical", "attention": "sparse-latent"},
    {"block": "hierarchical", "attention": {"name": "hybrid", "attention": "sparse-latent"}, "position": "none"},
    {"block": "hierarchical", "attention": GROUPED, "layers": [{}, {"attention": {"reuse_kv": True}}]},
    {"block": "hierarchical", "attention": {**GROUPED, "reuse_kv": True}},
    {"attention": GROUPED, "layers": [{"block": "hierarchical"}, {"attention": {"reuse_kv": True}}, {}], "n_layers": 5},
    {"attention": "multi-head", "layers": [{}, {"attention": {"name": "sparse-latent", "indexer": "previous"}}]},
    {"attention": {"name": "sparse-latent", "indexer": "previous"}},
    {"block": {"name": "shortcut-experts", "experts": {"name": "experts", "n_experts": 1, "router": {"k": 2}}}},
    {"feedforward": {"name": "experts", "n_experts": 2, "identity_experts": 2, "router": {"k": 5}}},
    {"block": {"name": "altup", "block": {"name": "per-layer-embedding", "block": "altup"}}},
    {"block": {"name": "pre-norm", "stream_norm": "affine", "shortcut": False}},
    {"attention": {"name": "convolutional", "n_heads": 4, "n_kv_heads": 3, "d_head": 4}},
    {"attention": {"name": "convolutional", "n_heads": 3, "n_kv_heads": 3, "d_head": 5}, "position": "none"},
    {"feedforward": {"name": "experts", "n_experts": 2, "zero_experts": 1, "router": {"name": "network", "k": 4}}},
    {"feedforward": {"name": "experts", "n_experts": 3, "router": {"name": "sigmoid", "always": 3}}},
    {"feedforward": {"name": "experts", "n_experts": 3, "router": {"name": "sigmoid", "always": 2}}},
    {"block": "per-layer-embedding", "layers": [{"block": {"block": "per-layer-embedding"}}]},
    {"block": {"name": "altup", "d_embedding": 32, "block": "per-layer-embedding"}},
    {"block": {"name": "hierarchical", "block": "per-layer-embedding"}},
    {"head": {"name": "multi-token", "head": {"name": "distillation", "teacher": "runs/teacher"}}},
    {"head": {"name": "distillation", "teacher": "a", "head": {"name": "distillation", "teacher": "b"}}},
]

SOURCES = [{"name": "a", "data": "builtin", "weight": 1}, {"name": "b", "data": {"name": "text", "path": "b"}, "weight": 2}]
# Sections with one error each, in data, training, or the names of the model's parameters.
WRONG_TRAINING: list[dict[str, Any]] = [
    {"data": {"name": "mixture", "sources": [SOURCES[0], SOURCES[0]]}},
    {"data": {"name": "mixture", "sources": [{**SOURCES[0], "epochs": 2}]}},
    {"data": {"name": "mixture", "sources": [SOURCES[0], {"name": "b", "data": "builtin"}]}},
    {"data": {"name": "mixture", "sources": [{"name": "a", "data": {"name": "mixture", "sources": SOURCES}}]}},
    {"data": {"name": "mixture", "sources": [{"name": "a", "data": {"name": "text", "windows": "packed"}}]}},
    {"training": {"batch_size": 6, "grad_accumulation": 4}},
    {"training": {"steps": 10, "stages": [{}, {"steps": 4}]}},
    {"training": {"steps": 10, "stages": [{"steps": 4}]}},
    {"training": {"batch_size": 8, "grad_accumulation": 4, "stages": [{"batch_size": 6}]}},
    {"training": {"stages": [{"window": 17}]}},
    {"training": {"stages": [{"mixture": {"a": 1}}]}},
    {"training": {"stages": [{"mixture": {"a": 0}}]}},
    {"data": {"name": "mixture", "sources": SOURCES}, "training": {"stages": [{"mixture": {"a": 1, "c": 1}}]}},
    {"training": {"stages": [{"losses": {"load_balance": 0.1}}]}},
    {"training": {"stages": [{"losses": {"label_smoothing": 1.0}}]}},
    {"training": {"stages": [{"attention_window": 4}], "callbacks": ["window-warmup"]}},
    {"training": {"freeze": ["embeding"]}},
    {"training": {"freeze": ["*", "!blocks.[2-3]"]}},
    {"training": {"freeze": ["*"]}},
    {"training": {"optimizer": {"name": "adamw", "groups": [{"match": ["blocks.*.norms"]}]}}},
    {"training": {"optimizer": {"name": "adamw", "groups": [{"match": "*norm*"}, {"match": ["final_norm"]}]}}},
    {"training": {"freeze": ["embedding"], "optimizer": {"name": "adamw", "groups": [{"match": ["embedding"]}]}}},
    {"model": {"linear": {"name": "low-rank", "projections": ["blocks.*.attenton"]}}},
    {"model": {"linear": {"name": "low-rank", "projections": ["*"]}, "feedforward": "experts"}},
    {"model": {"linear": "low-rank"}, "training": {"optimizer": {"name": "adamw", "groups": [{"match": ["*.qkv.weight"]}]}}},
]


def write_page(directory: Path, registry: Registry) -> str:
    """Write the page with its files, and return its address."""
    for path, text in assets(registry).items():
        (directory / path).parent.mkdir(exist_ok=True)
        (directory / path).write_text(text, encoding="utf-8")
    body = page(registry).partition("# Spec builder")[2]
    html = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>x</title><body>{body}</body></html>'
    (directory / "index.html").write_text(html, encoding="utf-8")
    return (directory / "index.html").as_uri()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_page(tmp_path_factory.mktemp("builder"), default_registry())


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Any]:
    with browser_page() as opened:
        opened.goto(address)
        yield opened


@contextmanager
def another_page(browser: Any, address: str, width: int = 1280) -> Iterator[Any]:
    """A second page of the browser; errors of its scripts fail the test."""
    opened, problems = browser.context.new_page(), []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.set_viewport_size({"width": width, "height": 900})
    opened.goto(address)
    yield opened
    opened.close()
    assert not problems


def spec_of(model: dict[str, Any]) -> dict[str, Any]:
    return {"gptkit": 1, "name": "x", "model": {"d_model": 32, "n_layers": 2, "context_length": 16, **model}}


def built(name: str | dict[str, Any]) -> Any:
    from gptkit.model.gpt import GPT  # torch

    spec = open_spec(name).spec
    return GPT(spec.model, spec.model.vocab_size or spec.tokenizer.expected_vocab_size or 1, device="meta")


def total(name: str | dict[str, Any]) -> int:
    return sum(parameter.numel() for parameter in built(name).parameters())


@pytest.mark.slow
def test_diagrams_equal_those_of_python(browser: Any) -> None:
    drawn = browser.evaluate(
        """() => Object.fromEntries(Object.entries(gptkitBuilderData.presets).map(([name, preset]) => {
            const {errors, spec} = Check.check(preset.spec);
            return [name, errors.length ? errors : Diagram.svg(Outline.outline(spec, null))];
        }))"""
    )
    assert len(drawn) > 80
    for name, text in drawn.items():
        assert text == svg(spec_outline(open_spec(name).spec)), name


def counted(browser: Any, names: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = browser.evaluate(
        """names => Object.fromEntries(names.map(name => {
            const {spec} = Check.check(gptkitBuilderData.presets[name].spec), counts = Parameters.counts(spec);
            return [name, counts && counts.total];
        }))""",
        names,
    )
    return result


def test_counts_equal_those_of_built_models(browser: Any) -> None:
    assert counted(browser, list(COUNTED)) == {name: total(name) for name in COUNTED}


@pytest.mark.slow
def test_counts_of_all_presets_equal_those_of_built_models(browser: Any) -> None:
    names = browser.evaluate("Object.keys(gptkitBuilderData.presets)")
    for name, count in counted(browser, names).items():
        assert count == total(name), name


@pytest.mark.parametrize("model", WRONG, ids=[json.dumps(model) for model in WRONG])
def test_errors_are_those_that_check_reports(browser: Any, model: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as caught:
        open_spec(spec_of(model))
    expected = {".".join(map(str, problem.path)) for problem in caught.value.problems}
    reported = browser.evaluate("data => Check.check(data).errors.map(error => error.path.join('.'))", spec_of(model))
    assert set(reported) == expected


@pytest.mark.parametrize("changes", WRONG_TRAINING, ids=[json.dumps(changes) for changes in WRONG_TRAINING])
def test_errors_of_data_and_training_are_those_that_check_reports(browser: Any, changes: dict[str, Any]) -> None:
    data = {**spec_of(changes.get("model", {})), **{key: value for key, value in changes.items() if key != "model"}}
    with pytest.raises(SpecError) as caught:
        open_spec(data)
    expected = {".".join(map(str, problem.path)) for problem in caught.value.problems}
    reported = browser.evaluate("data => Check.check(data).errors.map(error => error.path.join('.'))", data)
    assert set(reported) == expected


def names_of(browser: Any, data: dict[str, Any]) -> dict[str, list[str]]:
    result: dict[str, list[str]] = browser.evaluate(
        """data => {
            const found = Parameters.names(Check.check(data).spec);
            return found && {...found, losses: [...found.losses.keys()]};
        }""",
        data,
    )
    return result


def assert_names_are_those_of_the_model(browser: Any, data: dict[str, Any]) -> None:
    from gptkit.nn.freezing import projection_names
    from gptkit.nn.loss_weights import loss_weights

    model = built(data)
    names = names_of(browser, data)
    assert sorted(names["parameters"]) == sorted(name for name, _ in model.named_parameters())
    assert [sorted(names["projections"]), sorted(names["stacked"])] == [sorted(each) for each in projection_names(model)]
    assert set(names["losses"]) == set(loss_weights(model))


QK_NORM = {"name": "multi-head", "qk_norm": "layer", "sinks": True, "n_heads": 4}
UNTIED = {"name": "linear", "tied": False, "bias": True}
LEARNED = {"name": "mlp", "activation": "xielu"}
EMBEDDED = {"name": "per-layer-embedding", "d_embedding": 4}
ALTUP = {"name": "altup", "streams": 3}
NAMED = (
    {"position": "shaw", "attention": QK_NORM, "norm": "layer"},
    {"position": "t5-bias", "layers": [{}, {"attention": {"name": "multi-head", "n_heads": 2}}], "n_layers": 3},
    {"linear": {"name": "low-rank", "projections": ["*.qkv", "blocks.[!0]"]}, "block": "sandwich", "n_layers": 3},
    {"block": {"name": "sandwich", "depth_scaled": True}, "attention": {**QK_NORM, "output_gate": True, "gate_bias": True}},
    {"head": {"name": "multi-token", "depth": 2, "head": UNTIED}, "linear": "low-rank"},
    {"feedforward": {"name": "experts", "n_experts": 2, "expert": LEARNED, "shared": "gated"}},
    {"block": {"name": "pre-norm", "attention_input_norm": False}, "feedforward": {"name": "single-layer", "bias": False}},
    {
        "block": {"name": "pre-norm", "feedforward_norm": {"name": "layer", "shift": False}},
        "norm": {"name": "gated", "norm": "layer", "rank": 3},
        "attention": {"name": "latent", "q_rank": 5, "query_latents": "both", "output_gate": True, "gate_input": "queries"},
        "layers": [{}, {"attention": {"q_rank": None}}, {"attention": {"output_gate": False}, "norm": "gated"}],
        "n_layers": 3,
        "linear": "low-rank",
    },
    {
        "attention": {"name": "expert-heads", "n_experts": 3, "n_kv_heads": 2, "router": {"name": "sigmoid", "norm": "rms"}},
        "feedforward": {"name": "experts", "n_experts": 2, "output_bias": True},
    },
    {"attention": {"name": "differential", "n_heads": 4, "n_kv_heads": 2, "norm": "layer", "qkv_bias": True}},
    {"feedforward": {"name": "gated", "hidden_norm": "rms"}, "attention": {**QK_NORM, "output_norm": "layer"}},
    {"feedforward": {"name": "experts", "n_experts": 2, "expert": {"name": "gated", "hidden_norm": "rms"}}},
    {
        "block": {"name": "sandwich", "feedforward_input_norm": False},
        "feedforward": {
            "name": "experts",
            "n_experts": 2,
            "router": {"name": "softmax-top-k", "norm": "rms", "expert_scale": True},
            "shared": "gated",
            "branch_norm": "rms",
        },
    },
    {
        "block": {
            "name": "shared-branch",
            "attention": {**GROUPED, "n_kv_heads": 2, "output_gate": True, "qk_norm": "rms"},
            "attention_rank": 3,
            "feedforward_rank": 5,
        },
        "layers": [{}, {"block": "pre-norm"}, {"block": {"group": 1, "embedding": False, "feedforward": "mlp"}}, {}],
        "n_layers": 4,
        "linear": "low-rank",
    },
    {"block": {"name": "shared-branch", "attention_rank": 2}, "n_layers": 2},
    {
        "attention": {
            "name": "grouped-query",
            "n_heads": 4,
            "n_kv_heads": 2,
            "kv_conv": 3,
            "relative_width": 2,
            "d_value": 5,
        },
        "position": {"name": "query-temperature", "growth": "smooth"},
        "block": {"name": "pre-norm", "output_conv": 4},
        "feedforward": {"name": "gated", "hidden_norm": {"name": "affine", "bias": "none", "shared": True}},
        "layers": [
            {},
            {"attention": {"window": 7, "reuse_kv": True}},
            {"attention": {"reuse_kv": True}},
            {
                "feedforward": {
                    "name": "experts",
                    "router": {"name": "sigmoid", "always": 2, "selection_bias": True},
                    "output_norm": {"name": "affine", "shared": True},
                }
            },
        ],
        "n_layers": 4,
    },
    {
        "attention": {"name": "convolutional", "n_heads": 4, "n_kv_heads": 2, "d_head": 4, "head_width": 3, "norm": "layer"},
        "block": {"name": "pre-norm", "output_norm": "affine", "stream_norm": {"name": "affine", "bias": "none"}},
        "embedding": {"norm": {"name": "affine", "bias": "before"}},
        "feedforward": {
            "name": "experts",
            "n_experts": 2,
            "zero_experts": 2,
            "router": {"name": "network", "reads_previous": True, "activation": "xielu", "selection_bias": True},
        },
        "layers": [{}, {"feedforward": {"router": {"hidden_bias": False, "d_hidden": 5, "bias": True}}}],
        "n_layers": 3,
        "linear": {"name": "low-rank", "projections": ["*.qkv", "*.previous_value"]},
    },
    {"attention": {"name": "rwkv4", "d_inner": 20}, "block": "channel-mixing", "position": "none", "linear": "low-rank"},
    {
        "attention": {"name": "mamba1", "n_heads": 2, "norm": "rms"},
        "layers": [{}, {"attention": {"n_heads": 1}}],
        "n_layers": 2,
        "position": "none",
        "linear": "low-rank",
    },
    {"embedding": {"d_embedding": 8}, "position": "learned", "attention": "single-head", "block": "parallel"},
    {"attention": {"name": "stacked-heads", "n_heads": 2, "qkv_bias": True}, "position": "shaw", "linear": "low-rank"},
    {"attention": "stacked-heads", "position": "t5-bias"},
    {"attention": {**QK_NORM, "v_norm": "rms"}, "layers": [{"attention": {"reuse_kv": True}}, {}], "n_layers": 5},
    {"feedforward": {"name": "experts", "n_experts": 3, "router": {"name": "hash", "table": True}}},
    {"attention": {**QK_NORM, "qk_norm_width": "full", "tie_kv": True}, "layers": [{}, {"attention": {"reuse_kv": True}}]},
    {"block": {**EMBEDDED, "block": {"name": "sandwich", "output_scale": "learned"}, "output_scale": "fixed"}},
    {
        "block": {**EMBEDDED, "n_ids": 9, "activation": "xielu"},
        "layers": [{}, {}, {"block": {"projection": True}}],
        "n_layers": 3,
    },
    {"block": {**ALTUP, "block": {"name": "laurel", "rank": 5}}, "n_layers": 3},
    {"block": {**ALTUP, "d_embedding": 6, "norm": "rms", "projection": True, "correct_scale": False}},
    {
        "block": {"name": "hierarchical", "blocks": 2, "start": "learned", "block": "laurel"},
        "attention": QK_NORM,
        "feedforward": {"name": "experts", "n_experts": 2, "expert": LEARNED, "latent": 8, "shared": "mlp"},
        "linear": {"name": "low-rank", "rank": 3, "projections": ["*.qkv", "blocks.*.high.1"]},
    },
    {
        "block": {
            "name": "shortcut-experts",
            "experts": {"name": "experts", "n_experts": 2, "identity_experts": 3, "router": {"selection_bias": True}},
        },
        "attention": QK_NORM,
        "feedforward": LEARNED,
    },
    {
        "block": {"name": "manifold-hyper-connections", "streams": 3},
        "layers": [{}, {"block": {"mixing": "none"}, "position": "t5-bias"}],
        "n_layers": 3,
    },
    {
        "block": {"name": "manifold-hyper-connections", "streams": 2},
        "head": {"name": "multi-token", "block": {"name": "manifold-hyper-connections", "streams": 2}},
        "linear": "low-rank",
    },
    {"block": {"name": "attention-residuals", "group": 2}, "layers": [{}, {"block": {"output_conv": 3}}], "n_layers": 3},
    {
        "block": {"name": "engram", "heads": 2, "table_rows": 40, "row_multiple": 16},
        "layers": [{}, {"block": {"max_ngram": 2, "block": {"name": "gated-hyper-connections", "streams": 3}}}],
        "n_layers": 4,
    },
    {
        "block": {"name": "gated-hyper-connections", "streams": 3, "rank": 5},
        "attention": {"name": "pooled-sparse", "n_heads": 4, "d_index": 20, "index_norm": "layer"},
        "norm": "layer",
        "n_layers": 3,
    },
    {
        "block": {"name": "attention-residuals", "kv_inputs": True},
        "attention": {
            "name": "grouped-query",
            "n_heads": 4,
            "n_kv_heads": 2,
            "d_value": 6,
            "qk_norm": "l2-clip",
            "k_norm": {"name": "l2-clip", "scale": False},
            "qk_norm_width": "each-head",
            "token_sinks": True,
            "kv_conv": 3,
            "kv_conv_form": "dynamic",
            "relative_width": 3,
            "relative_norm": "l2-clip",
            "qkv_bias": True,
        },
        "layers": [{}, {"block": {"kv_inputs": False}}, {"attention": {"output_gate": True, "kv_conv_form": "scaled"}}],
        "n_layers": 3,
    },
    {
        "layers": [{"block": "sandwich"}, {"block": {**ALTUP, "d_embedding": 6}}, {"block": "altup"}, {"block": ALTUP}],
        "n_layers": 4,
    },
)


@pytest.mark.parametrize("model", NAMED, ids=[json.dumps(model)[:60] for model in NAMED])
def test_names_and_counts_equal_those_of_built_models(browser: Any, model: dict[str, Any]) -> None:
    from gptkit.model.parts import count_parts

    assert_names_are_those_of_the_model(browser, spec_of(model))
    counts = browser.evaluate("data => Parameters.counts(Check.check(data).spec)", spec_of(model))
    expected = asdict(count_parts(built(spec_of(model))))
    assert counts == {**expected, "layers": list(expected["layers"])}


@pytest.mark.parametrize("model", NAMED[-9:], ids=[json.dumps(model)[:60] for model in NAMED[-9:]])
def test_diagrams_of_blocks_within_blocks_equal_those_of_python(browser: Any, model: dict[str, Any]) -> None:
    drawn = browser.evaluate("data => Diagram.svg(Outline.outline(Check.check(data).spec, null))", spec_of(model))
    assert drawn == svg(spec_outline(open_spec(spec_of(model)).spec))


@pytest.mark.slow
def test_names_of_all_presets_equal_those_of_built_models(browser: Any) -> None:
    presets = browser.evaluate("gptkitBuilderData.presets")
    assert len(presets) > 80
    for name, preset in presets.items():
        try:
            assert_names_are_those_of_the_model(browser, preset["spec"])
        except AssertionError as error:
            raise AssertionError(name) from error


@pytest.mark.slow
def test_specs_built_by_hand_are_accepted_by_check(
    browser: Any, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call = caller()

    def accepted(opened: Any, name: str) -> dict[str, Any]:
        assert opened.inner_text("#sb-verdict") == "no errors"
        with opened.expect_download() as download:
            opened.click("#sb-download")
        download.value.save_as(tmp_path / f"{name}.yaml")
        call("check", f"{name}.yaml")
        data: dict[str, Any] = json.loads(call("show", f"{name}.yaml", "--json").stdout)
        assert opened.inner_text("#sb-count") == f"{data['sizes']['parameters']:,} parameters"
        model: dict[str, Any] = data["spec"]["model"]
        return model

    with another_page(browser, address) as opened:
        # The start, with typed sizes and an error on the way.
        opened.fill("#field-model-d_model", "0")
        assert opened.inner_text("#sb-verdict") == "1 error"
        assert opened.get_attribute("#field-model-d_model", "aria-invalid") == "true"
        opened.fill("#field-model-d_model", "96")
        opened.fill("#field-name", "by hand: 1")
        assert accepted(opened, "first")["d_model"] == 96
        # Other parts, and fields inside them.
        opened.select_option("#field-model-attention", "grouped-query")
        opened.click("text=fields of grouped-query")
        opened.fill("#field-model-attention-n_heads", "6")
        opened.fill("#field-model-attention-n_kv_heads", "4")
        opened.click(".sb-errors button")
        assert opened.evaluate("document.activeElement.id") == "field-model-attention-n_kv_heads"
        opened.fill("#field-model-attention-n_kv_heads", "2")
        opened.select_option("#field-model-block", "sandwich")
        opened.select_option("#field-model-position", "t5-bias")
        opened.select_option("#field-model-attention-qkv_bias", "true")
        model = accepted(opened, "second")
        assert (model["attention"]["n_kv_heads"], model["block"]["name"], model["attention"]["qkv_bias"]) == (
            2,
            "sandwich",
            True,
        )
        # Choices that do not fit are disabled, with the reason.
        assert opened.get_attribute("#field-model-attention option[value=mamba2]", "disabled") is not None
        assert "does not accept" in opened.inner_text("#field-model-attention option[value=mamba2]")
        opened.select_option("#field-model-position", "none")
        assert opened.get_attribute("#field-model-attention option[value=mamba2]", "disabled") is None
        # Data and training: a mixture, stages and frozen parameters, with errors on the way.
        opened.click("text=Data and training")
        opened.select_option("#field-data", "mixture")
        opened.click("text=fields of mixture")
        for index, name in enumerate(("books", "code")):
            opened.click("#field-data-sources")
            opened.fill(f"#field-data-sources-{index}-name", name)
            opened.select_option(f"#field-data-sources-{index}-data", "text")
        assert opened.get_attribute("#field-data-sources-0-data option[value=mixture]", "disabled") is not None
        assert "cannot be a source" in opened.inner_text("#field-data-sources-0-data option[value=mixture]")
        opened.fill("#field-training-freeze", "embeding, blocks.0")
        assert opened.inner_text("#sb-verdict") == "1 error"
        assert "similar: embedding" in opened.inner_text(".sb-errors")
        opened.fill("#field-training-freeze", "embedding, blocks.0")
        opened.click("#field-training-stages")
        opened.fill("#field-training-stages-0-mixture", '{"books": 1, "cod": 2}')
        assert "no such source" in opened.inner_text(".sb-errors")
        opened.fill("#field-training-stages-0-mixture", '{"books": 1, "code": 2}')
        opened.fill("#field-training-stages-0-attention_window", "8")
        assert opened.get_attribute("#field-training-callbacks", "type") == "button"
        accepted(opened, "trained")
        saved = json.loads(call("show", "trained.yaml", "--json").stdout)["spec"]
        assert saved["training"]["freeze"] == ["embedding", "blocks.0"]
        assert saved["training"]["stages"][0]["mixture"] == {"books": 1, "code": 2}
        assert [source["name"] for source in saved["data"]["sources"]] == ["books", "code"]
        # A pattern of layers, then a preset, then the address.
        opened.click("#field-model-layers")
        opened.click("#field-model-layers")
        opened.fill("#field-model-layers-0-repeat", "2")
        opened.select_option("#field-model-layers-1-attention", "mamba2")
        assert [layer["repeat"] for layer in accepted(opened, "third")["layers"]] == [2, 1]
        shared = opened.url
        opened.select_option("#sb-preset", "tiny")
        accepted(opened, "fourth")
        opened.goto("about:blank")
        opened.goto(shared)
        assert accepted(opened, "fifth")["layers"][1]["attention"]["name"] == "mamba2"


class NestSpec(FeedForwardSpec):
    """Feed-forward of a plugin."""

    name: Literal["nest"] = "nest"
    twigs: int = Field(3, ge=1, description="Number of <twigs>.")

    def build(self, context: Any) -> Any:
        raise NotImplementedError


def test_components_of_plugins_are_offered_and_not_counted(browser: Any, tmp_path: Path) -> None:
    from gptkit.core.hooks import hookimpl

    module = types.ModuleType("nest")
    setattr(module, "gptkit_components", hookimpl(lambda: [NestSpec]))  # noqa: B010
    with another_page(browser, write_page(tmp_path, registry_of(nest=lambda: module)), width=390) as opened:
        opened.select_option("#field-model-feedforward", "nest")
        opened.click("text=1 field of nest")
        opened.fill("#field-model-feedforward-twigs", "5")
        assert opened.inner_text("#sb-count") == "parameters: unknown here"
        assert "nest feed-forward" in opened.inner_text(".sb-drawing")
        assert "twigs 5" in opened.inner_text(".sb-drawing")
        assert opened.evaluate("document.documentElement.scrollWidth") <= 390
