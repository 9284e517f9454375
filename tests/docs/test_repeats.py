"""Repetitions in the wiring of a module: drawn once, with the number of times."""

from __future__ import annotations

from collections.abc import Sequence

from gptkit.core.registry import Registry
from gptkit.docs.figures.drawing import figure
from gptkit.docs.figures.repeats import Repeat, folded
from gptkit.docs.figures.tracing import Step
from gptkit.docs.figures.wiring import Wiring


def chain(names: Sequence[str]) -> list[Step]:
    """Children, each of which reads the one before."""
    return [Step(name, "Linear", (1, 7, 8), (at - 1,)) for at, name in enumerate(names)]


def test_repeats_of_repeats_fold() -> None:
    steps, repeats = folded(chain(["low", "norm"] * 3 + ["high"] + ["low", "norm"] * 3 + ["high", "end"]))
    assert [step.name for step in steps] == ["low", "norm", "high", "end"]
    assert [step.sources for step in steps] == [(-1,), (0,), (1,), (2,)]
    assert repeats == (Repeat(0, 1, 3, 0), Repeat(0, 2, 2, 1))


def test_steps_without_repetition_stay() -> None:
    steps = chain(["attention", "norm", "feedforward", "norm"])
    assert folded(steps) == (steps, ())


def test_a_child_called_beside_itself_is_not_a_repeat() -> None:
    steps = [Step("norm", "RMSNorm", (1, 7, 8), (-1,)), Step("norm", "RMSNorm", (1, 7, 8), (-1,))]
    assert folded(steps) == (steps, ())


def test_operations_alone_are_not_a_repeat() -> None:
    steps = [Step("+", "", (1, 7, 8), (at - 1,)) for at in range(3)]
    assert folded(steps) == (steps, ())


def test_hierarchical_block_is_drawn_with_one_cycle(builtin: Registry) -> None:
    drawn = figure(builtin.component("block", "hierarchical"), builtin)
    assert drawn is not None
    (wiring,) = drawn.panels
    assert isinstance(wiring, Wiring)
    names = [box.name for box in wiring.boxes]
    assert names == ["x", "+", "low.0", "low.1", "low_norm", "+", "high.0", "high.1", "high_norm", "x"]
    assert [(repeat.first, repeat.last, repeat.times) for repeat in wiring.repeats] == [(1, 4, 3), (1, 8, 2)]
    assert "× 3" in wiring.draw("key")
    assert "repeated with the same weights" in drawn.caption
