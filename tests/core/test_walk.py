"""The walk over a spec tree and the difference of two specs."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from gptkit.core.component import Component
from gptkit.core.diff import ABSENT, differences
from gptkit.core.spec import Spec
from gptkit.core.walk import Path, components, map_components
from tests.support.fake_plugins import Exact, Gate, Norm, Plain


class Tree(Spec):
    norm: Norm = Field(description="One.")
    several: tuple[Norm, ...] = Field((), description="Many.")
    named: dict[str, Norm] = Field({}, description="Many, by name.")
    part: Gate | None = Field(None, description="One that holds another.")
    width: int = Field(1, description="A number.")


TREE = Tree(
    norm=Plain(),
    several=(Exact(offset=1), Plain()),
    named={"a": Exact(offset=2)},
    part=Gate(width=1, norm=Exact(offset=3)),
    width=3,
)


def test_components_are_found_at_every_depth_with_their_paths() -> None:
    result = {path: component.name for path, component in components(TREE)}
    assert result == {
        ("norm",): "plain",
        ("several", 0): "exact",
        ("several", 1): "plain",
        ("named", "a"): "exact",
        ("part",): "gate",
        ("part", "norm"): "exact",
    }
    assert list(result)[-2:] == [("part",), ("part", "norm")], "outer components first"


def test_mapping_changes_components_at_every_depth_and_copies_only_what_changes() -> None:
    def shift(path: Path, component: Component) -> Component:
        return component.replace(offset=component.offset + 10) if isinstance(component, Exact) else component

    changed = map_components(TREE, shift)
    assert [component.offset for _, component in components(changed) if isinstance(component, Exact)] == [11, 12, 13]
    assert isinstance(changed.several, tuple)
    assert changed.norm is TREE.norm
    assert [component.offset for _, component in components(TREE) if isinstance(component, Exact)] == [1, 2, 3]
    assert map_components(TREE, lambda path, component: component) is TREE


def test_the_outer_component_is_changed_before_those_inside() -> None:
    def change(path: Path, component: Component) -> Component:
        if isinstance(component, Gate):
            return component.model_copy(update={"norm": Exact(offset=5)})
        return component.replace(offset=component.offset * 2) if isinstance(component, Exact) else component

    part = map_components(TREE, change).part
    assert part is not None
    assert part.norm == Exact(offset=10)


def changes(left: Any, right: Any, **options: Any) -> dict[str, tuple[Any, Any]]:
    return {each.dotted: (each.left, each.right) for each in differences(left, right, **options)}


def test_differences_have_paths_and_both_values() -> None:
    other = Tree(
        norm=Exact(offset=1), several=(Exact(offset=7),), named={"a": Exact(offset=2)}, part=Gate(width=1, norm=Plain())
    )
    assert changes(TREE, TREE) == {}
    assert changes(TREE, other) == {
        "norm": (Plain(), Exact(offset=1)),
        "several.0.offset": (1, 7),
        "several.1": (Plain(), ABSENT),
        "part.norm": (Exact(offset=3), Plain()),
        "width": (3, 1),
    }


def test_plain_data_is_compared_like_specs() -> None:
    left = {"name": "one", "norm": {"name": "rms", "eps": 1}, "layers": [1, 2]}
    right = {"name": "two", "norm": {"name": "layer", "eps": 2}, "layers": [1], "more": None}
    assert changes(left, right) == {
        "name": ("one", "two"),
        "norm": (left["norm"], right["norm"]),
        "layers.1": (2, ABSENT),
        "more": (ABSENT, None),
    }


def test_comparison_of_values_can_be_passed() -> None:
    assert changes({"a": 1.0}, {"a": 1.0 + 1e-9}, equal=lambda a, b: abs(a - b) < 1e-6) == {}
