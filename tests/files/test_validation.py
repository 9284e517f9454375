"""Errors in specs: each reported once, with its location and the remedy."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pytest
from pydantic import Field, model_validator

from gptkit.core.component import component, optional_component
from gptkit.core.errors import Problem, SpecError
from gptkit.core.spec import Spec, validation_error
from gptkit.files import read, validate, validate_data
from gptkit.files.validation import MAX_PROBLEMS
from tests.support.fake_plugins import Exact, Gate, Mixer, Norm, Part, Plain, Whole, make, plugin, registry

REGISTRY = registry(
    plugin("third-party", [make("other", Norm, __annotations__={"name": Literal["other"], "power": int}, power=2)])
)


@pytest.fixture
def messages(write, errors):
    def of(text: str, overrides: tuple[str, ...] = (), cls: type[Spec] = Whole) -> list[str]:
        return errors(validate, read(write(text), overrides), cls, REGISTRY)

    return of


def test_valid_file_is_accepted(load):
    spec = validate(load("needed: 5\nnorm: {name: plain, eps: 1e-3}\nmixer: {name: gate, width: 3}\n"), Whole, REGISTRY)
    assert spec == Whole(needed=5, norm=Plain(eps=1e-3), mixer=Gate(width=3, norm=Plain()), part=Part(norm=Plain()))


def test_all_errors_are_reported_in_the_order_of_the_file(messages):
    text = """\
norm: plian
needed: five
samplers:
- plain
- {name: exact, steps: 0}
- 7
mixer:
  name: gate
  norm: {name: plain, epsi: 1}
  extra: {name: exat}
nam: x
"""
    assert messages(text) == [
        "gpt.yaml:1:7: norm: unknown norm 'plian'; did you mean 'plain'? (registered: exact, other, plain)",
        "gpt.yaml:2:9: needed: expected a whole number, got the text 'five'",
        "gpt.yaml:5:24: samplers.1.steps: must be at least 1, got 0",
        "gpt.yaml:6:3: samplers.2: expected a norm: a name, or a mapping with a 'name', not the number 7",
        "gpt.yaml:7:1: mixer.width: missing, and has no default (How wide it is)",
        "gpt.yaml:9:23: mixer.norm.epsi: norm 'plain' has no field 'epsi'; did you mean 'eps'? (fields: eps, mode)",
        "gpt.yaml:10:17: mixer.extra.name: unknown norm 'exat'; did you mean 'exact'? (registered: exact, other, plain)",
        "gpt.yaml:11:1: nam: unknown key 'nam'; did you mean 'name'? "
        "(keys: name, requires, norm, mixer, samplers, part, needed)",
    ]


def test_fields_behind_a_name_are_reported_with_the_form_of_components(messages):
    form = "write its fields in braces, with its name: {name: exact, FIELD: VALUE}"
    assert messages("needed: 1\nsamplers: [{exact: 5}, exact=5, exact 5]") == [
        f"gpt.yaml:2:12: samplers.0: norm has no 'name'; {form}",
        f"gpt.yaml:2:24: samplers.1: unknown norm 'exact=5'; {form}",
        f"gpt.yaml:2:33: samplers.2: unknown norm 'exact 5'; {form}",
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("steps: x", "steps: expected a whole number, got the text 'x'"),
        ("steps: '10'", "steps: expected a whole number, got the text '10'; remove the quotes"),
        ("steps: '1.5'", "steps: expected a whole number, got the text '1.5'"),
        ("steps: 1.5", "steps: expected a whole number, got the number 1.5"),
        ("steps: 1_0", "steps: expected a whole number, got the text '1_0'; write 10"),
        ("steps: 1k", "steps: expected a whole number, got the text '1k'; write 1000"),
        ("steps: 1/2", "steps: expected a whole number, got the text '1/2'"),
        ("offset: 1/8", "offset: expected a number, got the text '1/8'; write 0.125"),
        ("offset: 10%", "offset: expected a number, got the text '10%'; write 0.1"),
        ("offset: nan", "offset: expected a number, got the text 'nan'"),
        ("steps: [1]", "steps: expected a whole number, got a list"),
        ("steps: ", "steps: expected a whole number, got nothing"),
        ("steps: 10", "steps: must be less than 10, got 10"),
        ("offset: {a: 1}", "offset: expected a number, got a mapping"),
        ("bias: perhaps", "bias: expected true or false, got the text 'perhaps'"),
        ("bias: 7", "bias: expected true or false, got the number 7"),
        ("sizes: 5", "sizes: expected a list, got the number 5; write it in brackets: [5]"),
        ("sizes: [1, x]", "sizes.1: expected a whole number, got the text 'x'"),
        ("sizes: [1, 2, 3, 4]", "sizes: must have at most 3 items, got 4"),
        ("label: 5", "label: expected a text, got the number 5; put it in quotes"),
        (
            "sizes: {a: 5}",
            "sizes: expected a list, got a mapping; write each item after a hyphen, '- a: …', or in brackets: [{a: …}]",
        ),
        ("labels: 5", "labels: expected a list, got the number 5; write it in brackets: ['5']"),
        ("labels: [5]", "labels.0: expected a text, got the number 5; put it in quotes"),
        ("label: ''", "label: must have at least 1 character, got the text ''"),
        ("label: A", "label: must match the pattern ^[a-z]+$, got the text 'A'"),
        ("label: true", "label: expected a text, got the truth value true"),
        # unions are one error: that of the branch that accepted the type
        ("either: x", "either: expected a whole number or a list, got the text 'x'"),
        ("either: [1, x]", "either.1: expected a whole number, got the text 'x'"),
        ("size: 5", "size: norm 'exact' has no field 'size'; did you mean 'sizes'? "),
        ("eps: 5", "eps: norm 'exact' has no field 'eps'; 'plain' has it: set norm.name too (fields: offset, "),
        ("name: plain, mode: fats", "mode: expected 'fast' or 'slow', got the text 'fats'; did you mean 'fast'?"),
        ("name: plain, mode: 5", "mode: expected 'fast' or 'slow', got the number 5"),
        ("name: plain, eps: 0", "eps: must be greater than 0, got 0"),
        ("name: exact, nam: plain", "nam: norm has no field 'nam'; did you mean 'name'?"),
        ("name: 5", "norm 'name' is not a text; choose one of: exact, other, plain"),
        (
            "exact: {steps: 5}",
            "exact: norm 'plain' has no field 'exact'; write its fields in braces, with its name: {name: exact, ",
        ),
        (
            "name: exact=5",
            "name: unknown norm 'exact=5'; write its fields in braces, with its name: {name: exact, ",
        ),
        ("name: ", "norm has no 'name'; choose one of: exact, other, plain"),
    ],
)
def test_messages_have_one_style(messages, fields, message):
    start = "" if fields.startswith(("name", "exact")) else "name: exact, "
    [line] = messages(f"needed: 1\nnorm: {{{start}{fields}}}")
    location, _, rest = line.partition(": ")
    assert location.startswith("gpt.yaml:2:")
    assert rest.removeprefix("norm.").removeprefix("norm: ").startswith(message)


def test_misspelled_name_is_one_error(messages):
    assert messages("needed: 1\nnorm: {nam: plain, eps: 1e-3, offset: 1}") == [
        "gpt.yaml:2:8: norm.nam: norm has no field 'nam'; did you mean 'name'?"
    ]
    assert len(messages("needed: 1\nnorm: {name: other, nam: plain, eps: 1e-3, offset: 1}")) > 1


def test_error_in_a_repeated_alias_is_reported_once(messages):
    result = messages("needed: 1\nsamplers: [&one {name: plain, nothing: 1}, *one, *one]")
    assert len(result) == 1
    assert "nothing" in result[0]


def test_component_without_fields_is_reported():
    with pytest.raises(SpecError, match="norm 'bare' has no field 'x'; it has no fields"):
        validate_data({"needed": 1, "norm": {"name": "bare", "x": 1}}, Whole, registry(plugin("t", [make("bare")])))


def test_errors_are_located_at_the_key_or_the_value(messages):
    assert messages("needed: 1\npart: {sizes:   5}\n")[0].startswith("gpt.yaml:2:8: part.sizes: unknown key")
    assert messages("needed: 1\npart: {size:   x}\n")[0].startswith("gpt.yaml:2:16: part.size: expected")


def test_missing_key_at_the_root_is_reported(messages):
    assert messages("name: x\n") == ["gpt.yaml:1:1: needed: missing, and has no default (Must be there)"]


def test_wrong_type_of_a_section_is_reported(messages):
    assert messages("needed: 1\npart: 5") == ["gpt.yaml:2:7: part: expected a mapping, got the number 5"]


def test_error_in_an_override_names_it(messages):
    assert messages("needed: 1\n", ("norm=plian", "mixer={name: gate, width: x}")) == [
        "--set norm=plian: norm: unknown norm 'plian'; did you mean 'plain'? (registered: exact, other, plain)",
        "--set mixer={name: gate, width: x}: mixer.width: expected a whole number, got the text 'x'",
    ]


def test_errors_in_extended_files_are_located(write, errors):
    write("needed: x\nnorm: plian\n", "base.yaml")
    source = read(write("extends: base.yaml\nname: [1]\n"))
    result = errors(validate, source, Whole, REGISTRY)
    assert [line.split(": ")[0] for line in result] == ["gpt.yaml:2:1", "base.yaml:1:9", "base.yaml:2:7"]


def test_error_in_a_former_field_uses_its_written_name(messages):
    with pytest.warns(DeprecationWarning, match="now called 'eps'"):
        result = messages("needed: 1\nnorm: {name: plain, epsilon: x}")
    assert result == ["gpt.yaml:2:30: norm.epsilon: expected a number, got the text 'x'"]


def test_data_without_a_file_is_validated():
    with pytest.raises(SpecError) as caught:
        validate_data({"needed": -1, "norm": "plian", "x": 1}, Whole, REGISTRY)
    assert [problem.dotted for problem in caught.value.problems] == ["norm", "x"]
    assert all(problem.source is None and problem.line is None for problem in caught.value.problems)
    assert validate_data({"needed": 1}, Whole, REGISTRY).norm == Plain()


def test_excess_errors_are_counted(messages):
    result = messages("needed: 1\nsamplers: [" + "nothing-such, " * 500 + "]")
    assert len(result) == MAX_PROBLEMS + 1
    assert result[-1].endswith(f"samplers.{MAX_PROBLEMS}: and {500 - MAX_PROBLEMS} more errors")
    assert result[-1].startswith("gpt.yaml:2:")


class Circle(Spec):
    radius: int = Field(description="Half of its width.")


class Square(Spec):
    side: int = Field(description="Its width.")
    norm: Norm = component("plain", description="A norm.")


class Drawing(Spec):
    shape: Circle | Square | str = Field(description="What is drawn.")
    shapes: dict[str, Circle] = Field({}, description="By name.")
    pair: tuple[int, Norm] | None = Field(None, description="Two things.")


def test_paths_exclude_branches_of_unions(messages):
    assert messages("shape: {side: x, norm: {name: plain, epsi: 1}}", cls=Drawing) == [
        "gpt.yaml:1:15: shape.side: expected a whole number, got the text 'x'",
        "gpt.yaml:1:38: shape.norm.epsi: norm 'plain' has no field 'epsi'; did you mean 'eps'? (fields: eps, mode)",
    ]
    assert messages("shape: {radius: x, norm: plain}", cls=Drawing)[0].startswith(
        "gpt.yaml:1:17: shape.radius: expected a whole"
    )
    assert messages("shape: 5", cls=Drawing) == ["gpt.yaml:1:8: shape: expected a mapping or a text, got the number 5"]


def test_errors_in_mappings_and_pairs_are_located(messages):
    assert messages(
        "shape: x\nshapes: {a: {radius: 1}, b: {radios: 1}}\npair: [1, {name: exact, steps: 0}]", cls=Drawing
    ) == [
        "gpt.yaml:2:26: shapes.b.radius: missing, and has no default (Half of its width)",
        "gpt.yaml:2:30: shapes.b.radios: unknown key 'radios'; did you mean 'radius'? (keys: radius)",
        "gpt.yaml:3:32: pair.1.steps: must be at least 1, got 0",
    ]


# -- requires --------------------------------------------------------------------------------------------------


def test_unmet_requirements_are_reported_alone(messages):
    assert messages("norm: plian\nrequires: [pydantic, nothing-such>=2]\nneeded: x") == [
        "gpt.yaml:2:22: requires.1: nothing-such is not installed; run: pip install 'nothing-such>=2'"
    ]


def test_malformed_requirements_are_an_ordinary_error(messages):
    assert messages("requires: {a: 1}\nneeded: x") == [
        "gpt.yaml:1:1: requires: expected a list, got a mapping",
        "gpt.yaml:2:9: needed: expected a whole number, got the text 'x'",
    ]
    assert messages("requires: [5]\nneeded: 1") == [
        "gpt.yaml:1:12: requires.0: expected a text, got the number 5; put it in quotes"
    ]


# -- layers ----------------------------------------------------------------------------------------------------


class Layer(Spec):
    repeat: int = Field(1, ge=1, description="How often.")
    norm: Norm = component("plain", description="A norm.")
    mixer: Mixer | None = optional_component(description="A mixer.")


class Model(Spec):
    """Model that, like the real one, passes its parts to its layers before they are validated."""

    parts: ClassVar[tuple[str, ...]] = ("norm", "mixer")
    norm: Norm = component("plain", description="A norm.")
    mixer: Mixer | None = optional_component(description="A mixer.")
    layers: tuple[Layer, ...] | None = Field(None, description="Layers.")

    @model_validator(mode="wrap")
    @classmethod
    def _merge_parts(cls, value: Any, handler: Any) -> Any:
        from gptkit.files import merge

        data = dict(value)
        if isinstance(data.get("layers"), list):
            shared = {"norm": data.get("norm", "plain"), **({"mixer": data["mixer"]} if "mixer" in data else {})}
            data["layers"] = [
                {**shared, **{key: merge(shared.get(key), over) for key, over in entry.items()}} for entry in data["layers"]
            ]
        spec = handler(data)
        problems = [
            Problem(("layers", index, "norm", "offset"), "is odd")
            for index, layer in enumerate(spec.layers or ())
            if isinstance(layer.norm, Exact) and layer.norm.offset == 13
        ]
        if problems:
            raise validation_error(problems)
        return spec


class File(Spec):
    model: Model = Field(description="The model.")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        # an error that all layers share is reported once
        ("model:\n  norm: plian\n  layers: [{repeat: 2}, {repeat: 1}]", ["gpt.yaml:2:9: model.norm: unknown norm"]),
        (
            "model:\n  norm: {name: plain, epsi: 1}\n  layers: [{}, {norm: {mode: slow}}]",
            ["gpt.yaml:2:23: model.norm.epsi: norm 'plain' has no field 'epsi'; did you mean 'eps'?"],
        ),
        (
            "model:\n  norm: plian\n  layers: [{norm: {eps: 1}}]",
            ["gpt.yaml:2:9: model.norm: unknown norm 'plian'"],
        ),
        (
            "model:\n  norm: {name: plian}\n  layers: [{norm: {eps: 1}}]",
            ["gpt.yaml:2:16: model.norm.name: unknown norm 'plian'"],
        ),
        (
            "model:\n  mixer: {name: gate, width: 1, norm: plian}\n  layers: [{mixer: {width: 3}}]",
            ["gpt.yaml:2:39: model.mixer.norm: unknown norm 'plian'"],
        ),
        # an error in one layer is reported there
        (
            "model:\n  layers: [{repeat: 2}, {norm: {epsi: 1}}]",
            ["gpt.yaml:2:33: model.layers.1.norm.epsi: norm 'plain' has no field 'epsi'; did you mean 'eps'?"],
        ),
        (
            "model:\n  norm: exact\n  layers: [{norm: {steps: 0}}, {norm: {steps: 99}}]",
            [
                "gpt.yaml:3:27: model.layers.0.norm.steps: must be at",
                "gpt.yaml:3:47: model.layers.1.norm.steps: must be less",
            ],
        ),
        # an error of the whole spec is located where it was written
        (
            "model:\n  norm: {name: exact, offset: 13}\n  layers: [{}, {}, {norm: {steps: 2}}]",
            ["gpt.yaml:2:31: model.norm.offset: is odd"],
        ),
        (
            "model:\n  norm: {name: exact, offset: 13}\n  layers: [{}, {norm: {offset: 13}}, {norm: plain}]",
            ["gpt.yaml:2:31: model.norm.offset: is odd", "gpt.yaml:3:32: model.layers.1.norm.offset: is odd"],
        ),
    ],
)
def test_error_shared_by_layers_is_reported_once(messages, text, lines):
    result = messages(text, cls=File)
    assert len(result) == len(lines), result
    for line, start in zip(result, lines, strict=True):
        assert line.startswith(start)
