"""Merging: components of another name replace, everything else is merged; `extends` and `--set`."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptkit.core.errors import SpecError
from gptkit.files import merge, read
from gptkit.files.nodes import lift
from gptkit.files.overrides import apply_overrides
from gptkit.files.source import MAX_EXTENDS
from tests.support.fake_plugins import Plain

RMS = {"name": "rms", "eps": 1e-6}


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        # mappings key by key, at any depth; lists and scalars replace
        ({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"c": 3}, "e": 4}, {"a": 1, "b": {"c": 3, "d": 2}, "e": 4}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": 5}, {"a": 5}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": 5}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        # components
        (RMS, {"name": "layer"}, {"name": "layer"}),
        (RMS, {"name": "layer", "bias": False}, {"name": "layer", "bias": False}),
        (RMS, {"name": "rms", "offset": True}, {"name": "rms", "eps": 1e-6, "offset": True}),
        (RMS, {"eps": 1}, {"name": "rms", "eps": 1}),
        (RMS, "layer", "layer"),
        (RMS, "rms", RMS),
        ("rms", {"eps": 1}, {"name": "rms", "eps": 1}),
        ("rms", {"name": "layer", "eps": 1}, {"name": "layer", "eps": 1}),
        ("rms", {"name": "rms", "eps": 1}, {"name": "rms", "eps": 1}),
        ("rms", "layer", "layer"),
        ("rms", None, None),
        (None, {"name": "rms"}, {"name": "rms"}),
        (None, "rms", "rms"),
        ({"eps": 1}, {"name": "rms"}, {"eps": 1, "name": "rms"}),
        # components inside components
        (
            {"name": "gqa", "n_heads": 8, "qk_norm": RMS},
            {"qk_norm": "layer"},
            {"name": "gqa", "n_heads": 8, "qk_norm": "layer"},
        ),
        (
            {"name": "gqa", "qk_norm": RMS},
            {"name": "gqa", "qk_norm": {"eps": 1}},
            {"name": "gqa", "qk_norm": {"name": "rms", "eps": 1}},
        ),
        ({"name": "gqa", "qk_norm": RMS}, {"name": "mha", "qk_norm": {"eps": 1}}, {"name": "mha", "qk_norm": {"eps": 1}}),
    ],
)
def test_merge_follows_the_rule(base, over, merged):
    before = copy.deepcopy((base, over))
    assert merge(base, over) == merged
    assert (base, over) == before


def test_a_spec_is_merged_as_its_fields():
    assert merge(Plain(eps=0.5), {"mode": "slow"}) == {"name": "plain", "eps": 0.5, "mode": "slow"}


NAMES = st.sampled_from(["x", "y", "z"])
DATA = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), NAMES),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
        st.tuples(NAMES, st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2)).map(
            lambda pair: {"name": pair[0], **pair[1]}
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(DATA, DATA)
def test_merging_twice_changes_nothing(base, over):
    once = merge(base, over)
    assert merge(once, over) == once


@settings(max_examples=100, deadline=None)
@given(DATA)
def test_merging_with_itself_or_nothing_changes_nothing(data):
    assert merge(data, data) == data
    if isinstance(data, dict):
        assert merge(data, {}) == data


@settings(max_examples=200, deadline=None)
@given(DATA, DATA)
def test_every_value_of_the_override_is_in_the_result(base, over):
    """Every scalar and list of the override is in the result at its path."""

    def holds(result, message):
        if isinstance(message, dict):
            assert isinstance(result, dict)
            for key, value in message.items():
                holds(result[key], value)
        elif isinstance(message, str) and isinstance(result, dict):
            assert result["name"] == message
        else:
            assert result == message

    holds(merge(base, over), over)


# -- extends ---------------------------------------------------------------------------------------------------


def test_file_overrides_what_it_extends(write, load):
    base = write("name: base\nmodel:\n  d_model: 8\n  norm: {name: rms, eps: 1}\n  position: rotary\n", "base/base.yaml")
    source = load("extends: base/base.yaml\nname: mine\nmodel:\n  norm: layer\n  position: {base: 500}\n")
    assert source.data == {
        "name": "mine",
        "model": {"d_model": 8, "norm": "layer", "position": {"name": "rotary", "base": 500}},
    }
    here = str(source.path)
    assert source.locate(("model", "d_model")) == (str(base), 3, 12)
    assert source.locate(("model", "norm")) == (here, 4, 9)
    assert source.locate(("model", "position", "name")) == (str(base), 5, 13)
    assert source.locate(("model", "position", "base")) == (here, 5, 20)
    assert source.locate(("model", "missing")) == (here, 3, 1)
    assert source.files == (source.path, base)


def test_names_of_files_do_not_replace_each_other(write, load):
    write("name: base\nmodel: {d_model: 8}", "base.yaml")
    assert load("extends: base.yaml\nname: other").data == {"name": "other", "model": {"d_model": 8}}


def test_extends_is_relative_to_its_file_across_formats(write, load):
    write('{"a": 1, "b": 1, "c": 1}', "one/two/deep.json")
    write('extends = "two/deep.json"\nb = 2\nc = 2\n', "one/middle.toml")
    source = load("extends: one/middle.toml\nc: 3\n")
    assert source.data == {"a": 1, "b": 2, "c": 3}
    assert [path.name for path in source.files] == ["gpt.yaml", "middle.toml", "deep.json"]


def test_list_of_layers_replaces(write, load):
    write("layers: [{repeat: 1}, {repeat: 2}]", "base.yaml")
    assert load("extends: base.yaml\nlayers: [{window: 1}]").data == {"layers": [{"window": 1}]}


def test_extends_may_begin_with_the_home_directory(write, load, monkeypatch):
    base = write("a: 1", "base.yaml")
    monkeypatch.setenv("HOME", str(base.parent))
    monkeypatch.setenv("USERPROFILE", str(base.parent))
    assert load("extends: ~/base.yaml\nb: 2").data == {"a": 1, "b": 2}


def test_shipped_specs_are_found_by_name(write, load):
    shipped = {"modern": write("a: 1\nb: 1", "elsewhere/modern.yaml")}
    assert load("extends: modern\nb: 2", shipped=shipped).data == {"a": 1, "b": 2}
    assert read("modern", shipped=shipped).data == {"a": 1, "b": 1}


def test_file_takes_precedence_over_a_shipped_spec(write, load):
    shipped = {"base.yaml": write("a: shipped", "elsewhere/x.yaml")}
    write("a: file", "base.yaml")
    assert load("extends: base.yaml", shipped=shipped).data == {"a": "file"}


def test_errors_of_extends(write, load, errors):
    write("extends: gpt.yaml", "circle.yaml")
    assert errors(load, "extends: circle.yaml") == ["circle.yaml:1:10: extends: circular: gpt.yaml → circle.yaml → gpt.yaml"]
    assert errors(load, "a: 1\nextends: ./gpt.yaml") == ["gpt.yaml:2:10: extends: circular: gpt.yaml → gpt.yaml"]
    assert errors(load, "extends: [a.yaml]") == [
        "gpt.yaml:1:10: extends: expected the path of one spec file, or the name of a shipped spec"
    ]
    assert errors(load, "extends: ''")[0].startswith("gpt.yaml:1:10: extends: expected the path")
    [message] = errors(load, "extends: circel.yaml")
    assert message.startswith("gpt.yaml:1:10: extends: file 'circel.yaml' not found; did you mean 'circle.yaml'?")
    [message] = errors(load, "extends: moder", shipped={"modern": Path("x.yaml")})
    assert "file 'moder' not found; did you mean 'modern'?" in message


def test_error_in_the_other_file_is_located_in_it(write, load, errors):
    write("a: 1\nb: [", "base.yaml")
    [message] = errors(load, "extends: base.yaml")
    assert message.startswith("base.yaml:")


def test_length_of_an_extends_chain_is_bounded(write, load, errors):
    for index in range(MAX_EXTENDS + 2):
        write(f"extends: {index + 1}.yaml", f"{index}.yaml")
    [message] = errors(load, "extends: 0.yaml")
    assert f"more than {MAX_EXTENDS} files extend each other" in message


# -- overrides -------------------------------------------------------------------------------------------------

BASE = """\
name: tiny
model:
  d_model: 8
  position: {name: rotary, base: 5}
  norm: rms
  layers: [{window: 1}, {norm: rms}]
"""


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("model.position=alibi", ("model", "position"), "alibi"),
        ("model.position=rotary", ("model", "position"), {"name": "rotary", "base": 5}),
        ("model.position.base=1e4", ("model", "position"), {"name": "rotary", "base": 1e4}),
        ("model.position={base: 7}", ("model", "position"), {"name": "rotary", "base": 7}),
        ("model.position={name: alibi, x: [1, no]}", ("model", "position"), {"name": "alibi", "x": [1, "no"]}),
        ("model.position.name=alibi", ("model", "position"), {"name": "alibi"}),
        ("model.norm.eps=1e-6", ("model", "norm"), {"name": "rms", "eps": 1e-6}),
        ("model.layers.0.window=64", ("model", "layers"), [{"window": 64}, {"norm": "rms"}]),
        ("model.layers.1.norm.eps=1", ("model", "layers"), [{"window": 1}, {"norm": {"name": "rms", "eps": 1}}]),
        ("model.layers.1=", ("model", "layers"), [{"window": 1}, None]),
        ("model.layers=[]", ("model", "layers"), []),
        ("new.deep.path= 'x' ", ("new",), {"deep": {"path": "x"}}),
        ("name=other", ("name",), "other"),
        ("name=a=b", ("name",), "a=b"),
        ("model.d_model=", ("model", "d_model"), None),
        ("model={d_model: 9}", ("model", "norm"), "rms"),
    ],
)
def test_override_sets_a_value(load, override, path, value):
    source = load(BASE, overrides=(override,))
    result = source.data
    for part in path:
        result = result[part]
    assert result == value
    assert source.overridden == (override,)


def test_overrides_are_merged_in_order_and_override_the_extended_spec(write, load):
    write(BASE, "base.yaml")
    source = load("extends: base.yaml", overrides=("model.d_model=1", "model.d_model=2", "model.norm.eps=1"))
    assert source.data["model"]["d_model"] == 2
    assert source.data["model"]["norm"] == {"name": "rms", "eps": 1}


def test_value_of_an_override_is_located_in_it(load):
    source = load(BASE, overrides=("model.norm.eps=[1, {a: 2}]", "model.layers.0.window=3"))
    location = ("--set model.norm.eps=[1, {a: 2}]", None, None)
    assert source.locate(("model", "norm", "eps")) == location
    assert source.locate(("model", "norm", "eps", 1, "a")) == location
    assert source.locate(("model", "layers", 0, "window")) == ("--set model.layers.0.window=3", None, None)
    # Other values keep their locations.
    assert source.locate(("model", "norm", "name")) == (str(source.path), 5, 9)
    assert source.locate(("model", "layers", 1, "norm")) == (str(source.path), 6, 32)
    assert source.locate(("model", "missing")) == (str(source.path), 2, 1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.norm", "expected PATH=VALUE, as in model.position=alibi"),
        ("=5", "'' is not a path; write keys joined by dots, as in model.position"),
        ("model..norm=5", "'model..norm' is not a path; write keys joined by dots, as in model.position"),
        ("model.d_model.x=5", "model.d_model: is 8, so 'x' cannot be set below it"),
        ("model.layers.2.window=5", "model.layers: has 2 items, counted from 0; index 2 is out of range"),
        ("model.layers.x.window=5", "model.layers: is a list, which has 2 items; 'x' is not an index"),
        ("model.layers.-1=5", "model.layers: is a list, which has 2 items; '-1' is not an index"),
        ("model.norm=!!x 5", "tags are refused: remove !!x"),
        ("model.norm=.nan", "not a finite number"),
        ("model.norm=5\n- 6", "the value is more than one value"),
        ("model.norm=a\0", "the character U+0000 is not allowed in a spec file; check that it is a text file"),
        ("extends=base.yaml", "'extends' belongs in a spec file"),
        (".".join("a" * 100) + "=1", "the path is more than 64 deep"),
    ],
)
def test_error_in_an_override_names_it(load, errors, override, message):
    assert errors(load, BASE, overrides=(override,)) == [f"--set {override}: {message}"]


def test_override_that_is_not_yaml_is_rejected(load, errors):
    [message] = errors(load, BASE, overrides=("model.norm={name: rms",))
    assert message.startswith("--set model.norm={name: rms: not valid YAML: while parsing a flow mapping")


@pytest.mark.parametrize(
    ("overrides", "lost", "undone_by"),
    [
        (("model.d_model=1", "model.d_model=2"), "model.d_model", "--set model.d_model=2"),
        (("model.attention.window=8", "model.attention=simple"), "model.attention.window", "--set model.attention=simple"),
        (("model={d_model: 1}", "model.d_model=2"), "model.d_model", "--set model.d_model=2"),
        (("model.layers.0.norm=rms", "model.layers=[{}]"), "model.layers.0.norm", "--set model.layers=[{}]"),
        (("training.steps=5", "name=a", "training={steps: 6}"), "training.steps", "--set training={steps: 6}"),
        (("model.n_layers=3", "model=null"), "model.n_layers", "--set model=null"),
    ],
)
def test_override_that_undoes_an_earlier_one_is_rejected(overrides, lost, undone_by):
    spec = {"model": {"d_model": 8, "attention": {"name": "multi-head"}, "layers": [{"repeat": 1}]}}
    with pytest.raises(SpecError) as error:
        apply_overrides(lift(spec), overrides)
    (problem,) = error.value.problems
    assert (".".join(map(str, problem.path)), problem.source) == (lost, f"--set {overrides[0]}")
    assert problem.message.startswith(f"is undone by {undone_by}, which follows it; remove one of the two")


@pytest.mark.parametrize(
    "overrides",
    [
        ("model.d_model=1", "model.d_model=1"),
        ("model.norm=rms", "model.norm.eps=1", "model.norm={name: rms, eps: 1}", "model.norm=rms"),
        ("model.attention=simple", "model.attention.window=8"),
        ("model.layers.0.norm=rms", "model.layers.1.norm=rms"),
    ],
)
def test_overrides_that_complete_each_other_are_accepted(overrides):
    spec = {"model": {"d_model": 8, "attention": {"name": "multi-head"}, "layers": [{"repeat": 1}, {}]}}
    assert apply_overrides(lift(spec), overrides)
