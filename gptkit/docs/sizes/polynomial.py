"""Polynomials with rational coefficients, and their exact fit to measured numbers."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["Monomial", "Point", "Polynomial", "fit", "points"]

Point = Mapping[str, int]
"""A value of each symbol."""

Monomial = tuple[tuple[str, int], ...]
"""Symbols with their powers; the empty one is 1."""

Measure = Callable[[Point], "int | None"]
"""A measured number for a point; None where the sizes are not valid together."""

_POWER, _DEGREE = 3, 5
"""The largest power of a symbol, and the largest sum of the powers of a monomial."""
_TRIES = 12
"""Points that are tried for each coefficient, before a fit is given up."""
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Polynomial:
    """Sum of monomials with coefficients other than 0, in the order in which it is written."""

    terms: tuple[tuple[Fraction, Monomial], ...]

    def __call__(self, point: Point) -> Fraction:
        return sum((factor * _value(monomial, point) for factor, monomial in self.terms), Fraction(0))

    @property
    def symbols(self) -> list[str]:
        """The symbols that it has, in the order in which they are written."""
        return list(dict.fromkeys(symbol for _, monomial in self.terms for symbol, _ in monomial))

    def text(self) -> str:
        """Return it as text: ``2·d_model·d_hidden + d_hidden``."""
        parts: list[str] = []
        for factor, monomial in self.terms:
            size = abs(factor)
            number = str(size.numerator) if size.denominator == 1 else f"{size.numerator}/{size.denominator}"
            shown = [] if size == 1 and monomial else [number]
            shown += [symbol + (str(power).translate(_RAISED) if power > 1 else "") for symbol, power in monomial]
            sign = ("" if factor > 0 else "−") if not parts else (" + " if factor > 0 else " − ")
            parts.append(sign + "·".join(shown))
        return "".join(parts) or "0"


def fit(measure: Measure, base: Point, values: Mapping[str, Sequence[int]]) -> Polynomial | None:
    """Return the polynomial that gives the measured numbers; None if there is none of small degree.

    The power of each symbol, and which symbols occur together, are found by changing one and two symbols at a time; the
    coefficients then solve a system of linear equations, exactly. The caller verifies the result at points of its own.

    Args:
        measure: the numbers, integers.
        base: a valid point.
        values: values of each symbol of `base` that may vary, its own among them.
    """
    powers = {symbol: _power(measure, base, symbol, some) for symbol, some in values.items()}
    if any(power is None for power in powers.values()):
        return None
    active = {symbol: power for symbol, power in powers.items() if power}
    apart = {
        frozenset(pair)
        for pair in itertools.combinations(active, 2)
        if not _together(measure, base, pair, [values[symbol] for symbol in pair])
    }
    monomials = [each for each in _monomials(active) if not _has_pair(each, apart)]
    rows: list[list[Fraction]] = []
    tried = points(base, {symbol: values[symbol] for symbol in active}, seed=0)
    for point in itertools.islice(tried, _TRIES * len(monomials) + 20):
        number = measure(point)
        if number is not None:
            _add(rows, [*(Fraction(_value(each, point)) for each in monomials), Fraction(number)])
        if len(rows) == len(monomials):
            break
    if len(rows) < len(monomials):
        return None
    solved = {_lead(row): row[-1] for row in rows}
    terms = [(solved[index], monomial) for index, monomial in enumerate(monomials) if solved.get(index)]
    order = list(base)

    def place(term: tuple[Fraction, Monomial]) -> tuple[int, list[int]]:
        return -sum(power for _, power in term[1]), [order.index(symbol) for symbol, _ in term[1]]

    return Polynomial(tuple(sorted(terms, key=place)))


def points(base: Point, values: Mapping[str, Sequence[int]], *, seed: int) -> Iterator[dict[str, int]]:
    """Yield points with random values of some symbols, without end."""
    generator = random.Random(seed)
    while True:
        yield {**base, **{symbol: generator.choice(some) for symbol, some in values.items()}}


def _value(monomial: Monomial, point: Point) -> int:
    return math.prod(point[symbol] ** power for symbol, power in monomial)


def _power(measure: Measure, base: Point, symbol: str, values: Sequence[int]) -> int | None:
    """Return the power of a symbol, 0 if it has no effect or cannot vary; None if it is not a small one."""
    measured = [(value, measure({**base, symbol: value})) for value in values]
    known = [(Fraction(value), Fraction(number)) for value, number in measured if number is not None]
    differences = [number for _, number in known]
    for power in range(_POWER + 1):
        if all(each == differences[0] for each in differences):
            return power if len(differences) > 1 or power == 0 else None
        # Divided differences of the next order.
        order = power + 1
        differences = [
            (later - earlier) / (known[index + order][0] - known[index][0])
            for index, (earlier, later) in enumerate(itertools.pairwise(differences))
        ]
        if not differences:
            return None
    return None


def _together(measure: Measure, base: Point, pair: Sequence[str], values: Sequence[Sequence[int]]) -> bool:
    """Return whether two symbols occur in one monomial; true where no valid sizes show it."""
    tested = False
    start = measure(base)
    for own in itertools.product(
        *([value for value in some if value != base[symbol]] for symbol, some in zip(pair, values, strict=True))
    ):
        both = measure({**base, pair[0]: own[0], pair[1]: own[1]})
        alone = [measure({**base, symbol: value}) for symbol, value in zip(pair, own, strict=True)]
        if start is None or both is None or alone[0] is None or alone[1] is None:
            continue
        if both - alone[0] - alone[1] + start:
            return True
        if tested:
            return False
        tested = True
    return not tested


def _monomials(powers: Mapping[str, int]) -> Iterator[Monomial]:
    for chosen in itertools.product(*(range(power + 1) for power in powers.values())):
        if sum(chosen) <= _DEGREE:
            yield tuple((symbol, power) for symbol, power in zip(powers, chosen, strict=True) if power)


def _has_pair(monomial: Monomial, apart: set[frozenset[str]]) -> bool:
    symbols = [symbol for symbol, _ in monomial]
    return any(frozenset(pair) in apart for pair in itertools.combinations(symbols, 2))


def _lead(row: Sequence[Fraction]) -> int:
    return next((index for index, value in enumerate(row[:-1]) if value), -1)


def _add(rows: list[list[Fraction]], row: list[Fraction]) -> None:
    """Add an equation to a reduced system of equations, unless it follows from the others."""
    for known in rows:
        factor = row[_lead(known)]
        if factor:
            row = [own - factor * other for own, other in zip(row, known, strict=True)]
    lead = _lead(row)
    if lead < 0:
        return
    row = [value / row[lead] for value in row]
    for index, known in enumerate(rows):
        factor = known[lead]
        if factor:
            rows[index] = [own - factor * other for own, other in zip(known, row, strict=True)]
    rows.append(row)
