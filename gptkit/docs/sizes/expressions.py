"""Expressions of a component's sizes: fitted, verified at sizes that the fit has not seen, and stored.

``measured.json`` holds the expressions of the built-in components and the numbers at a named size. It is data, not a source
of truth: of a component whose sources have changed since, each expression is compared with newly measured models when pages
are made, and fitted again where it does not agree. Tests measure some of them again, and all of them nightly.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.docs.digests import own_sources
from gptkit.docs.sizes.measuring import KINDS, Measured, Meter
from gptkit.docs.sizes.polynomial import Polynomial, fit, points
from gptkit.docs.stored_file import read_stored

__all__ = [
    "NAMED",
    "QUANTITIES",
    "STORED",
    "Expression",
    "Fitted",
    "Sizes",
    "fitted",
    "refreshed_data",
    "sizes",
    "stored_data",
]

QUANTITIES = ("parameters", "flops", "cache")
STORED = Path(__file__).with_name("measured.json")
NAMED: Mapping[str, int] = {"d_model": 768, "T": 1024, "vocab_size": 50257, "d_in": 768, "d_out": 3072}
"""The size at which numbers are stated: that of GPT-2 with 124 million parameters."""

_FACTORS = (1, 2, 3, 4, 6)
_PARTS = (4, 2)
_UNSEEN = (5, 7, 8)
"""Multiples and parts of the base values: those of the fit, and those with which it is verified."""
_LENGTHS = (37, 101, 150)
"""Numbers of tokens, no multiples of a chunk."""
_MANY, _FEW, _TRIES = 6, 2, 60
"""Sizes with which a new expression and a stored one are compared, and those that are tried."""


@dataclass(frozen=True)
class Expression:
    """A size as an expression.

    Attributes:
        polynomial: the expression.
        multiple: T must be a multiple of this; 1 for any number of tokens.
    """

    polynomial: Polynomial
    multiple: int = 1


@dataclass(frozen=True)
class Sizes:
    """Sizes of a component.

    Attributes:
        expressions: by quantity; None for one that no expression describes.
        point: the named size: the values of all symbols.
        numbers: the measured numbers there; None if the component cannot be built at this size.
        fixed: fields that cannot vary alone, with the values that the expressions hold for.
    """

    expressions: Mapping[str, Expression | None]
    point: Mapping[str, int]
    numbers: Mapping[str, int] | None
    fixed: Mapping[str, int]


@dataclass(frozen=True)
class Fitted:
    """Expressions of a component, the symbols that cannot vary alone, and whether null fields are symbols (`Meter`)."""

    expressions: Mapping[str, Expression | None]
    fixed: tuple[str, ...] = ()
    derived: bool = True


def sizes(cls: type[Component], registry: Registry) -> Sizes | None:
    """Return the sizes of a component; None for a kind that has none.

    Raises:
        GptkitError: no configuration of the component can be built.
    """
    if cls.kind not in KINDS:
        return None
    data = _stored().get(f"{cls.kind} {cls.component_name()}")
    known = _known(data)
    if known is not None and registry.entry(cls.kind, cls.component_name()).plugin.built_in:
        example = _example(data, known, own_sources(cls, registry))
        if example is not None:
            return example
    return _measured(*_verified(cls, registry, known))


def _verified(cls: type[Component], registry: Registry, known: Fitted | None) -> tuple[Fitted, Meter]:
    """Return expressions that agree with models measured now: the known ones, or new ones."""
    meter = Meter(cls, registry, derived=known is None or known.derived)
    if known is None or not _agree(meter, known):
        known = fitted(cls, registry)
        meter = Meter(cls, registry, derived=known.derived)
    return known, meter


def _measured(known: Fitted, meter: Meter) -> Sizes:
    """Return the sizes with these expressions, without those that do not agree with the named size."""
    point = _named(meter)
    measured = meter.measure(point)
    numbers = None if measured is None else {quantity: _number(measured, quantity) for quantity in QUANTITIES}
    expressions = dict(known.expressions)
    for quantity, expression in known.expressions.items():
        # One more size that the fit has not seen.
        if numbers is not None and expression is not None and expression.polynomial(point) != numbers[quantity]:
            expressions[quantity] = None
    fixed = {symbol: meter.base[symbol] for symbol in known.fixed if symbol in meter.base}
    return Sizes(expressions, point, numbers, fixed)


def fitted(cls: type[Component], registry: Registry) -> Fitted:
    """Return the expressions that agree with models of other sizes than those they are fitted to.

    Where fields that are null by default have no such expression (a projection that is absent if two widths are equal), the
    expressions hold for these defaults.
    """
    first = _fitted(Meter(cls, registry), derived=True)
    if None not in first.expressions.values() and "d_model" not in first.fixed:
        return first
    second = _fitted(Meter(cls, registry, derived=False), derived=False)
    counts = [sum(each is not None for each in one.expressions.values()) for one in (first, second)]
    return second if counts[1] > counts[0] or (counts[1] == counts[0] and "d_model" in first.fixed) else first


def _fitted(meter: Meter, *, derived: bool) -> Fitted:
    base = meter.base
    values = {symbol: _seen(value, parts=symbol != "T") for symbol, value in base.items()}
    fixed = tuple(
        symbol
        for symbol, some in values.items()
        if not any(meter.measure({**base, symbol: value}) is not None for value in some if value != base[symbol])
    )
    expressions: dict[str, Expression | None] = {}
    for quantity in QUANTITIES:
        polynomial = fit(partial(_at, meter, quantity=quantity), base, values)
        expressions[quantity] = None
        for multiple in (1, base.get("T", 1)):
            if polynomial is not None and _agrees(meter, Expression(polynomial, multiple), quantity, fixed):
                expressions[quantity] = Expression(polynomial, multiple)
                break
    return Fitted(expressions, fixed, derived)


def stored_data(registry: Registry, names: Container[str] | None = None) -> dict[str, Any]:
    """Return the content of the stored file: the expressions of the built-in components, as plain data.

    Args:
        registry: the registry of the components.
        names: the components that are measured, such as ``norm rms``; by default all.
    """
    return {name: _entry(cls, registry, None) for name, cls in _built_in(registry).items() if names is None or name in names}


def refreshed_data(registry: Registry) -> dict[str, Any]:
    """Return the content of the stored file, measured only where a component's own sources have changed since.

    Args:
        registry: the registry of the components.
    """
    result = {}
    for name, cls in _built_in(registry).items():
        data = _stored().get(name)
        known = _known(data)
        current = known is not None and _example(data, known, own_sources(cls, registry)) is not None
        result[name] = data if current else _entry(cls, registry, known)
    return result


def _built_in(registry: Registry) -> dict[str, type[Component]]:
    """Return the built-in components that have sizes, by kind and name."""
    entries = {f"{kind} {name}": entry for kind in KINDS for name, entry in registry.entries(kind).items()}
    return {name: entry.cls for name, entry in entries.items() if entry.plugin.built_in}


def _entry(cls: type[Component], registry: Registry, known: Fitted | None) -> dict[str, Any]:
    """Return what is stored of a component, as plain data."""
    known, meter = _verified(cls, registry, known)
    result = _measured(known, meter)
    numbers = None if result.numbers is None else dict(result.numbers)
    example = {"point": dict(result.point), "numbers": numbers, "fixed": dict(result.fixed)}
    plain = _plain(Fitted(result.expressions, known.fixed, known.derived))
    return {**plain, "example": example, "sources": own_sources(cls, registry)}


def _seen(value: int, *, parts: bool) -> list[int]:
    """Return the values of a symbol that a fit uses: multiples, and parts for one that others must be multiples of."""
    below = [value // part for part in _PARTS if value % part == 0] if parts else []
    return below + [value * factor for factor in _FACTORS]


def _agree(meter: Meter, known: Fitted) -> bool:
    """Return whether models of some sizes that no fit has seen have the numbers of all expressions."""
    multiple = max((each.multiple for each in known.expressions.values() if each is not None), default=1)
    some = list(itertools.islice(_unseen(meter, multiple, known.fixed), _FEW))
    return bool(some) and all(
        expression is None or _holds(meter, expression, quantity, some) for quantity, expression in known.expressions.items()
    )


def _agrees(meter: Meter, expression: Expression, quantity: str, fixed: Sequence[str]) -> bool:
    some = list(itertools.islice(_unseen(meter, expression.multiple, fixed), _MANY))
    return bool(some) and _holds(meter, expression, quantity, some)


def _holds(meter: Meter, expression: Expression, quantity: str, some: Sequence[Mapping[str, int]]) -> bool:
    if any(symbol not in meter.base for symbol in expression.polynomial.symbols):
        return False
    return all(expression.polynomial(point) == _at(meter, point, quantity=quantity) for point in some)


def _unseen(meter: Meter, multiple: int, fixed: Sequence[str]) -> Iterator[Mapping[str, int]]:
    """Yield valid sizes that no fit has seen: with all symbols changed, and then with one at a time."""
    base = meter.base
    values: dict[str, Sequence[int]] = {
        symbol: [value * factor for factor in _UNSEEN] for symbol, value in base.items() if symbol not in fixed
    }
    if "T" in values and multiple == 1:
        values["T"] = _LENGTHS
    for point in itertools.islice(points(base, values, seed=1), _TRIES):
        if meter.measure(point) is not None:
            yield point
    for symbol, some in values.items():
        for value in some:
            if meter.measure({**base, symbol: value}) is not None:
                yield {**base, symbol: value}


def _at(meter: Meter, point: Mapping[str, int], *, quantity: str) -> int | None:
    measured = meter.measure(point)
    return None if measured is None else _number(measured, quantity)


def _number(measured: Measured, quantity: str) -> int:
    number: int = getattr(measured, quantity)
    return number


def _named(meter: Meter) -> dict[str, int]:
    base = meter.base
    fields = meter.fields(NAMED["d_model"], NAMED["T"]) if "d_model" in base else {}
    return {symbol: fields.get(symbol, NAMED.get(symbol, value)) for symbol, value in base.items()}


@cache
def _stored() -> Mapping[str, Any]:
    return read_stored(STORED)


def _known(data: Any) -> Fitted | None:
    if data is None:
        return None
    try:
        return Fitted(
            {quantity: _read(data[quantity]) for quantity in QUANTITIES},
            tuple(data.get("fixed", ())),
            data.get("derived", True),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _example(data: Any, known: Fitted, sources: str) -> Sizes | None:
    """Return the stored sizes of a component with these sources; None if they are those of other sources."""
    if data.get("sources") != sources:
        return None
    try:
        example = data["example"]
        numbers = None if example["numbers"] is None else {name: int(example["numbers"][name]) for name in QUANTITIES}
        return Sizes(known.expressions, dict(example["point"]), numbers, dict(example["fixed"]))
    except (KeyError, TypeError, ValueError):
        return None


def _plain(known: Fitted) -> dict[str, Any]:
    result: dict[str, Any] = {quantity: _plain_expression(each) for quantity, each in known.expressions.items()}
    result |= {"fixed": list(known.fixed)} if known.fixed else {}
    return result | ({} if known.derived else {"derived": False})


def _plain_expression(expression: Expression | None) -> Any:
    if expression is None:
        return None
    terms = [[str(factor), dict(monomial)] for factor, monomial in expression.polynomial.terms]
    return {"terms": terms, **({"multiple": expression.multiple} if expression.multiple > 1 else {})}


def _read(data: Any) -> Expression | None:
    if data is None:
        return None
    terms = tuple((Fraction(factor), tuple(powers.items())) for factor, powers in data["terms"])
    return Expression(Polynomial(terms), data.get("multiple", 1))
