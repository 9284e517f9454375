"""Dumped YAML: readable, and read back equal."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptkit.files import dump_yaml, read


def test_layout_of_dumped_yaml():
    data = {
        "name": "tiny",
        "model": {
            "d_model": 256,
            "dropout": 0.0,
            "eps": 1e-05,
            "norm": {"name": "rms", "eps": 1e-06, "offset": False},
            "attention": {
                "name": "grouped-query",
                "n_heads": 8,
                "n_kv_heads": 2,
                "qk_norm": {"name": "rms", "eps": 1e-06},
                "window": None,
                "a_field_with_a_long_name": "and a long value",
            },
            "layers": [{"repeat": 5, "norm": "rms"}, {"name": "x", "y": [1, 2]}],
            "plain": {"a": 1},
            "empty": {},
            "none": [],
        },
        "sizes": [1, 2, 3],
        "quoted": ["yes", "1e-3", "a: b", "", "null", "two words", "#no", "-", "a\nb", 'say "x"', "é"],
    }
    assert (
        dump_yaml(data)
        == """\
name: tiny
model:
  d_model: 256
  dropout: 0.0
  eps: 1e-05
  norm: {name: rms, eps: 1e-06, offset: false}
  attention:
    name: grouped-query
    n_heads: 8
    n_kv_heads: 2
    qk_norm: {name: rms, eps: 1e-06}
    window: null
    a_field_with_a_long_name: and a long value
  layers:
    - repeat: 5
      norm: rms
    - {name: x, y: [1, 2]}
  plain:
    a: 1
  empty: {}
  none: []
sizes: [1, 2, 3]
quoted: ["yes", "1e-3", "a: b", "", "null", two words, "#no", "-", "a\\nb", "say \\"x\\"", "é"]
"""
    )


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
    st.sampled_from(
        ["no", "~", "1_0", "0x1", "1e5", ".5", "- a", "? b", "a #b", "a:", ":a", "*a", "&a", "!a", "%a", "@a", "`a"]
    ),
    st.sampled_from(
        ["---", "...", "<<", "=", " a", "a ", "a\r\nb", "\u2028", "\x85", "\ufeff", "\x7f", "😀", "[", "}", ",", "a, b"]
    ),
)
DATA = st.dictionaries(
    TEXT,
    st.recursive(
        SCALAR,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(st.one_of(st.just("name"), TEXT), inner, max_size=4),
        ),
        max_leaves=15,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(DATA)
def test_dumped_yaml_is_read_back_equal(tmp_path_factory, data):
    data = {key: value for key, value in data.items() if key not in ("extends", "$schema")} or {"a": 1}
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(dump_yaml(data), encoding="utf-8", newline="")
    result = read(path).data
    assert result == data
    # 1 == 1.0 == True, but not here.
    assert json.dumps(result) == json.dumps(data)


@pytest.mark.parametrize(
    ("data", "error"), [({"a": float("inf")}, ValueError), ({"a": {1}}, TypeError), ({1: 2}, TypeError)]
)
def test_unsupported_values_are_rejected(data, error):
    with pytest.raises(error):
        dump_yaml(data)
    with pytest.raises(error):
        dump_yaml({"x": {"name": "y", "z": data}})


def test_tuples_become_lists_and_an_empty_mapping_is_kept(load):
    assert load(dump_yaml({"a": (1, (2,))})).data == {"a": [1, [2]]}
    assert dump_yaml({}) == "{}\n"
