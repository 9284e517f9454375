"""Requests of experiments, and the variants that follow from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gptkit.core.errors import GptkitError, SpecError
from gptkit.experiments.request import (
    ComparisonSpec,
    is_request,
    parse_axis,
    parse_numbers,
    parse_part,
    parse_seeds,
    parse_size,
    parse_value,
    parse_values,
    read_request,
)
from gptkit.experiments.variants import draft_variants, spec_hash
from gptkit.files import validate_data
from tests.support.command_line import write_project


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def request(**fields: Any) -> ComparisonSpec:
    return validate_data({"base": "mini.yaml", **fields}, ComparisonSpec)


def test_axis_values_are_yaml() -> None:
    assert parse_axis("model.position=learned,rotary,none") == ("model.position", ("learned", "rotary", "none"))
    assert parse_axis("training.clip=1, 0.5,null") == ("training.clip", (1, 0.5, None))
    mapping = parse_axis("model.feedforward={name: mlp, d_hidden: 8},gated")
    assert mapping == ("model.feedforward", ({"name": "mlp", "d_hidden": 8}, "gated"))
    for text in ("model.position", "=a,b", "model.position=", "x=[a", "x={a: 1"):
        with pytest.raises(GptkitError, match="--vary"):
            parse_axis(text)


def test_other_options_are_parsed() -> None:
    assert parse_numbers("1e-3,0.01", "--learning-rates") == (0.001, 0.01)
    assert parse_size("128x4") == {"model.d_model": 128, "model.n_layers": 4}
    assert (parse_seeds("3"), parse_seeds("0,4"), parse_seeds("4,")) == (3, (0, 4), (4,))
    assert parse_part("2/8") == (2, 8)
    assert parse_value("training.steps=5") == ("training.steps", 5)
    assert parse_values(["a.b=5", "c=null", "a.b=5"]) == {"a.b": 5, "c": None}
    for wrong in (
        lambda: parse_numbers("a", "--learning-rates"),
        lambda: parse_size("128"),
        lambda: parse_seeds("x"),
        lambda: parse_part("3/2"),
        lambda: parse_value("training.steps"),
        lambda: parse_values(["training.steps=5", "training.steps=6"]),
    ):
        with pytest.raises(GptkitError, match="--"):
            wrong()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base": None}, "give base"),
        ({"specs": ["a.yaml", "b.yaml"]}, "give base"),
        ({"base": None, "specs": ["a.yaml"]}, "nothing is compared"),
        ({}, "nothing is compared"),
        ({"vary": {"model.norm": ["rms"]}}, "at least two"),
        ({"vary": {"model.norm": ["rms", "rms"]}}, "twice"),
        ({"vary": {"model.norm": ["rms", "layer"]}, "set": {"model.norm": "rms"}}, "replaced by the values of vary"),
        (
            {"learning_rates": [1e-3], "set": {"training.optimizer.learning_rate": 1}},
            "by the values of learning_rates",
        ),
        ({"sizes": {"a": {"model.d_model": 8}}, "set": {"model.d_model": 8}}, "replaced by the values of sizes"),
        ({"vary": {"model.norm": ["rms", "layer"]}, "seeds": 0}, "seeds"),
        ({"vary": {"model.norm": ["rms", "layer"]}, "seeds": [1, 1]}, "seeds"),
        ({"learning_rates": [0.1, 0.1]}, "learning_rates"),
        ({"vary": {"model.norm": ["rms", "layer"]}, "match": "size"}, "match"),
    ],
)
def test_requests_that_compare_nothing_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        request(**fields)


def test_grid_has_every_combination_and_the_base_first() -> None:
    drafts = draft_variants(request(vary={"model.position": ["none", "rotary"], "model.norm": ["layer", "rms"]}))
    assert [draft.label for draft in drafts.variants] == [
        "position=rotary, norm=rms",  # the defaults of the file
        "position=none, norm=layer",
        "position=none, norm=rms",
        "position=rotary, norm=layer",
    ]
    assert [draft.is_base for draft in drafts.variants] == [True, False, False, False]
    assert drafts.axes == {"model.position": ("rotary", "none"), "model.norm": ("rms", "layer")}
    assert len({spec_hash(draft) for draft in drafts.variants}) == 4


def test_first_value_is_the_base_where_the_value_of_the_file_is_not_compared() -> None:
    drafts = draft_variants(request(vary={"model.position": ["none", "alibi"]}))
    assert [(draft.label, draft.is_base) for draft in drafts.variants] == [
        ("position=none", True),
        ("position=alibi", False),
    ]


def test_sizes_and_learning_rates_multiply_the_variants() -> None:
    fields = {"vary": {"model.norm": ["rms", "layer"]}, "learning_rates": [0.01, 0.001]}
    drafts = draft_variants(request(**fields, sizes={"16x1": parse_size("16x1"), "32x2": parse_size("32x2")}))
    assert len(drafts.variants) == 8
    assert sum(draft.is_base for draft in drafts.variants) == 4
    last = next(draft for draft in drafts.variants if draft.label == "norm=layer, lr=0.001, 32x2")
    spec = last.opened.spec
    assert (spec.model.d_model, spec.model.n_layers, spec.training.optimizer.learning_rate) == (32, 2, 0.001)
    assert last.choices == {"model.norm": "layer"}


def test_invalid_variants_are_reported_before_anything_is_trained() -> None:
    attentions = [{"name": "multi-head", "n_heads": 3}, {"name": "multi-head", "n_heads": 2}]
    fields = {"vary": {"model.attention": attentions, "model.norm": ["rms", "layer"]}}
    with pytest.raises(GptkitError) as error:
        draft_variants(request(**fields))
    assert "2 of 4 variants are invalid" in error.value.message
    assert "attention={name: multi-head, n_heads: 3}, norm=layer: " in error.value.message
    assert "--skip-invalid" in str(error.value.hint)
    drafts = draft_variants(request(**fields, skip_invalid=True))
    assert len(drafts.variants) == len(drafts.invalid) == 2
    with pytest.raises(GptkitError, match="all 2 variants are invalid"):
        draft_variants(request(vary={"model.positon": ["none", "rotary"]}, skip_invalid=True))


def test_an_error_of_the_base_is_reported_alone(project: Path) -> None:
    for base, changes, message in (
        ("nosuch.yaml", {}, r"^nosuch\.yaml: file not found"),
        (str(project / "mini.yaml"), {"model.nrom": "rms"}, r"model\.nrom: unknown key"),
    ):
        request = ComparisonSpec(base=base, vary={"model.position": ("none", "alibi")}, set=changes)
        with pytest.raises(GptkitError, match=message) as caught:
            draft_variants(request)
        assert "variants" not in str(caught.value)


def test_equal_variants_are_refused() -> None:
    # The default of the field is explicit in one of them.
    with pytest.raises(GptkitError, match="the same spec"):
        draft_variants(request(vary={"model.norm": ["rms", {"name": "rms"}]}))


def test_other_batch_sizes_get_the_same_number_of_tokens() -> None:
    drafts = draft_variants(request(vary={"training.batch_size": [2, 6]}, set={"training.steps": 30}))
    first, second = drafts.variants
    assert (first.opened.spec.training.steps, second.opened.spec.training.steps) == (30, 10)
    assert second.notes == ("training.steps = 10, for 960 tokens as the base",)


def test_spec_files_are_variants(project: Path) -> None:
    text = (project / "mini.yaml").read_text(encoding="utf-8")
    (project / "wide.yaml").write_text(text.replace("d_model: 16", "d_model: 32"), encoding="utf-8")
    drafts = draft_variants(validate_data({"specs": ["mini.yaml", "wide.yaml"]}, ComparisonSpec))
    assert [draft.label for draft in drafts.variants] == ["mini", "wide"]
    assert drafts.axes == {"spec": ("mini", "wide")}


def test_experiment_files_name_specs_beside_them(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "norms.yaml").write_text("base: mini.yaml\nvary: {model.norm: [rms, layer]}\nquestion: Why?\n")
    monkeypatch.chdir(project.parent)
    path = f"{project.name}/norms.yaml"
    assert is_request(path)
    assert not is_request(f"{project.name}/mini.yaml")
    assert not is_request("tiny")
    read = read_request(path)
    assert (read.name, read.question, read.vary) == ("norms", "Why?", {"model.norm": ("rms", "layer")})
    assert len(draft_variants(read).variants) == 2


def test_a_value_inside_of_a_varied_component_applies_to_every_variant() -> None:
    vary = {"model.attention": ["grouped-query", {"name": "multi-head", "n_heads": 2}]}
    drafts = draft_variants(request(vary=vary, set={"model.attention.window": 4}))
    assert [draft.opened.spec.model.attention.window for draft in drafts.variants] == [4, 4]
