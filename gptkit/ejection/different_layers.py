"""Statements that construct the blocks of a model, in which layers may differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_lowercase

from gptkit.ejection.lines import LINE, wrapped

__all__ = ["construct_blocks"]


def construct_blocks(constructors: Sequence[str]) -> list[str]:
    """Return the statements that construct the blocks, in which layers may differ.

    A parameter `layer` that is the layer's index in each of them is the variable of the loop.
    """
    constructors = [re.sub(rf"\blayer={layer}(?=[,)])", "layer=layer", each) for layer, each in enumerate(constructors)]
    by_index = any("layer=layer" in each for each in constructors)
    different = list(dict.fromkeys(constructors))
    if len(different) == 1:
        return [f"self.blocks = nn.ModuleList({different[0]} for {'layer' if by_index else '_'} in range(N_LAYERS))"]
    # The most frequent one is the last, that of `else`, so that conditions are short.
    different.sort(key=constructors.count)
    period = _period(constructors)
    variable = "layer" if period == len(constructors) else f"layer % {period}"
    places = [[layer for layer in range(period) if constructors[layer] == each] for each in different]
    conditions = [_condition(layers, variable, period) for layers in places]
    start = ["for layer in range(N_LAYERS):"]
    if max(map(len, conditions[:-1])) > LINE - 20 >= len(constructors) and len(different) <= len(ascii_lowercase):
        # A text with a letter for each layer is shorter than lists of their numbers.
        letters = dict(zip(dict.fromkeys(constructors), ascii_lowercase, strict=False))
        start = [f'pattern = "{"".join(letters[each] for each in constructors)}"', "for kind in pattern:"]
        if by_index:
            start[1] = "for layer, kind in enumerate(pattern):"
        conditions = [f'kind == "{letters[each]}"' for each in different]
    lines = ["self.blocks = nn.ModuleList()", *start]
    for index, constructor in enumerate(different):
        condition = f"{'if' if index == 0 else 'elif'} {conditions[index]}"
        lines.append(f"    {'else' if index == len(different) - 1 else condition}:")
        indent = " " * 8
        lines += [line.removeprefix(indent) for line in wrapped(f"{indent}        self.blocks.append({constructor})")]
    return lines


def _period(constructors: Sequence[str]) -> int:
    """Return the number of layers after which the pattern repeats; all of them if it does not."""
    n_layers = len(constructors)
    for period in range(1, n_layers // 2 + 1):
        if all(constructors[layer] == constructors[layer % period] for layer in range(n_layers)):
            return period
    return n_layers


def _condition(places: Sequence[int], variable: str, period: int) -> str:
    if len(places) == 1:
        return f"{variable} == {places[0]}"
    if places[-1] - places[0] == len(places) - 1:
        if places[0] == 0:
            return f"{variable} < {places[-1] + 1}"
        if places[-1] == period - 1:
            return f"{variable} >= {places[0]}"
    return f"{variable} in ({', '.join(map(str, places))})"
