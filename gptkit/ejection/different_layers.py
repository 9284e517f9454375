"""Statements that construct the blocks of a model, in which layers may differ."""

from __future__ import annotations

import ast
import re
from collections.abc import Hashable, Sequence
from string import ascii_lowercase

from gptkit.ejection.lines import LINE, wrapped

__all__ = ["construct_blocks"]

_SHORT = 30
"""Longest condition within a call; a longer one is a variable."""


def construct_blocks(constructors: Sequence[str]) -> list[str]:
    """Return the statements that construct the blocks, in which layers may differ.

    A parameter `layer` that is the layer's index in each of them is the variable of the loop.
    """
    constructors = [re.sub(rf"\blayer={layer}(?=[,)])", "layer=layer", each) for layer, each in enumerate(constructors)]
    by_index = any("layer=layer" in each for each in constructors)
    different = list(dict.fromkeys(constructors))
    if len(different) == 1:
        return [f"self.blocks = nn.ModuleList({different[0]} for {'layer' if by_index else '_'} in range(N_LAYERS))"]
    whole, by_argument = _by_layer(constructors, different, by_index), _by_argument(constructors)
    return by_argument if by_argument and len(by_argument) < len(whole) else whole


def _by_layer(constructors: Sequence[str], different: list[str], by_index: bool) -> list[str]:
    """Return the statements with one branch for each form of a layer."""
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


def _by_argument(constructors: Sequence[str]) -> list[str]:
    """Return the statements with one branch for each form of an argument; empty if a layer's class or a size differs.

    Arguments that are modules become variables, and truth values the conditions under which they hold.
    """
    lines = ["self.blocks = nn.ModuleList()", "for layer in range(N_LAYERS):"]
    variables: dict[str, list[str]] = {}
    truths: dict[str, str] = {}

    def argument(name: str, nodes: Sequence[ast.expr], texts: Sequence[str]) -> str | None:
        """Return the expression of an argument; None if it is not one for all layers."""
        values = [ast.get_source_segment(text, node) or "" for node, text in zip(nodes, texts, strict=True)]
        if len(set(values)) == 1:
            return values[0]
        if set(values) == {"True", "False"}:
            return _holding([value == "True" for value in values])
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        if len(calls) < len(nodes):
            return None
        nested = [each.value for each in calls[0].keywords if isinstance(each.value, ast.Call)]
        if nested and (whole := call(calls, texts)) is not None:
            inner.append((name, whole))
            return whole
        values, conditions = _with_conditions(values)
        if variables.setdefault(name, values) != values or any(
            truths.get(key, text) != text for key, text in conditions.items()
        ):
            return None
        truths.update(conditions)
        if len(set(values)) > 1:
            return name
        inner.append((name, variables.pop(name)[0]))
        return values[0]

    def call(calls: Sequence[ast.Call], texts: Sequence[str]) -> str | None:
        """Return a call with the expressions of its arguments; None if the calls have different forms."""
        forms = {(ast.unparse(each.func), len(each.args), tuple(word.arg for word in each.keywords)) for each in calls}
        if len(forms) != 1 or calls[0].args:
            return None
        arguments = []
        for index, word in enumerate(calls[0].keywords):
            text = argument(word.arg or "", [each.keywords[index].value for each in calls], texts)
            if text is None:
                return None
            arguments.append(f"{word.arg}={text}")
        return f"{ast.unparse(calls[0].func)}({', '.join(arguments)})"

    inner: list[tuple[str, str]] = []
    parsed = [ast.parse(text, mode="eval").body for text in constructors]
    calls = [node for node in parsed if isinstance(node, ast.Call)]
    block = call(calls, constructors) if len(calls) == len(parsed) else None
    if block is None:
        return []
    lines += [f"    {name} = {condition}" for name, condition in truths.items()]
    for name, values in variables.items():
        lines += [f"    {line}" for line in _assigned(name, values)]
    indent = " " * 8
    # The longest that fits on a line is the first, so that what is within it needs no line of its own.
    fitting = sorted(inner, key=lambda each: (len(f"{indent}    {each[0]} = {each[1]}") > LINE, -len(each[1])))
    for name, whole in fitting:
        # What the block has in all layers gets a line of its own where that of the block is too long.
        if len(f"{indent}    self.blocks.append({block})") > LINE and f"{name}={whole}" in block and name not in variables:
            lines += [line.removeprefix(indent) for line in wrapped(f"{indent}    {name} = {whole}")]
            block = block.replace(f"{name}={whole}", f"{name}={name}")
    return [*lines, *(line.removeprefix(indent) for line in wrapped(f"{indent}    self.blocks.append({block})"))]


def _with_conditions(values: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return calls in which truth values that divide otherwise equal calls are conditions, and those that are variables."""
    values, variables = list(values), {}
    for name in dict.fromkeys(re.findall(r"\b(\w+)=(?:True|False)\b", " ".join(values))):
        pattern = rf"\b{name}=(True|False)\b"
        held = [re.findall(pattern, value) for value in values]
        others = [re.sub(pattern, "", value) for value in values]
        if all(len(each) == 1 for each in held) and len(set(others)) < len(set(values)):
            condition = _holding([each == ["True"] for each in held])
            if len(condition) > _SHORT:
                variables[name], condition = condition, name
            values = [re.sub(pattern, f"{name}={condition}", value) for value in values]
    return values, variables


def _holding(truths: Sequence[bool]) -> str:
    """Return the condition under which a truth value holds, by the layer."""
    period = _period(truths)
    variable = "layer" if period == len(truths) else f"layer % {period}"
    return _condition([layer for layer in range(period) if truths[layer]], variable, period)


def _assigned(name: str, values: Sequence[str]) -> list[str]:
    """Return the statements that assign one of several values to a variable, by the layer."""
    different = sorted(dict.fromkeys(values), key=values.count)
    classes = {value.partition("(")[0] for value in different}
    target = f"{name}: nn.Module" if len(classes) > 1 else name
    period = _period(values)
    variable = "layer" if period == len(values) else f"layer % {period}"
    places = [[layer for layer in range(period) if values[layer] == value] for value in different]
    conditions = [_condition_of_part(layers, variable, period) for layers in places]
    short = f"{name} = {different[0]} if {conditions[0]} else {different[-1]}"
    if len(different) == 2 and len(short) <= LINE - 12:
        return [short]
    lines = []
    for index, value in enumerate(different):
        start = "if" if index == 0 else "elif"
        lines.append("else:" if index == len(different) - 1 else f"{start} {conditions[index]}:")
        lines.append(f"    {target if index == 0 else name} = {value}")
    return lines


def _period(constructors: Sequence[Hashable]) -> int:
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


def _condition_of_part(places: Sequence[int], variable: str, period: int) -> str:
    """Return the condition of a part of blocks, which has no form as a text: layers at equal distances are a range."""
    step = places[1] - places[0] if len(places) > 4 else 1
    if step > 1 and list(places) == list(range(places[0], places[-1] + 1, step)):
        return f"{variable} in range({places[0]}, {places[-1] + 1}, {step})"
    return _condition(places, variable, period)
