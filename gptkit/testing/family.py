"""Checks of families of external models, on tiny configurations that differ in every key that the family reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from gptkit.core.errors import ExternalModelError
from gptkit.interop.conversion import Move, pair, read_model, write_config
from gptkit.interop.differences import differences
from gptkit.kinds.family import FamilySpec
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.testing.check import Checks, ContractError, NotApplicableError, expect, skip
from gptkit.testing.configurations import SIZES, Variant, base_config, variants
from gptkit.testing.reference import known_to_reference
from gptkit.testing.subject import Subject

__all__ = ["FamilyCase", "case_of", "checks", "named", "written"]

checks = Checks()


class FamilyCase:
    """The configurations of tiny models on which a family is checked."""

    def __init__(self, subject: Subject) -> None:
        self.family = cast("FamilySpec", subject.spec)
        self.registry = subject.registry
        self.written: dict[int, dict[str, object] | None] = {}
        """Configurations that are written for variants, by their identities."""

    @cached_property
    def defaults(self) -> list[dict[str, object]]:
        """The sizes alone, for each of the family's tiny configurations: every other key has its default."""
        try:
            return [base_config(self.family, SIZES, tiny, self.registry) for tiny in self.family.tiny]
        except ExternalModelError as error:
            skip(f"no tiny model; give the class variable `tiny` with keys of one: {error.message}")

    @cached_property
    def variants(self) -> list[Variant]:
        """Configurations with each key changed in turn, and with all changed at once."""
        try:
            groups = [variants(self.family, tiny, self.registry, self._valid) for tiny in self.family.tiny]
        except ExternalModelError as error:
            skip(f"no tiny model; give the class variable `tiny` with keys of one: {error.message}")
        return [variant for group in groups for variant in group]

    @property
    def few(self) -> list[Variant]:
        """The first configuration of each group, and that with all keys changed."""
        result = self.variants
        return [each for each in result if not each.what or each is result[-1] or each.what.startswith("with ")]

    def _valid(self, config: Mapping[str, object], model: ModelSpec) -> bool:
        """Whether the reference class takes a configuration, and reads the same model from it."""
        try:
            data = known_to_reference(self.family, config)
            return not differences(model, read_model(self.family, data, registry=self.registry))
        except NotApplicableError:
            return True
        except (ContractError, ExternalModelError):
            return False


_cases: WeakKeyDictionary[Subject, FamilyCase] = WeakKeyDictionary()


def case_of(subject: Subject) -> FamilyCase:
    """Return the configurations of a family, the same ones in every check."""
    if subject not in _cases:
        _cases[subject] = FamilyCase(subject)
    return _cases[subject]


@checks.add(
    "says-who-it-is", "A directory's config.json is matched to a family by these, and they are written into an export."
)
def says_who_it_is(subject: Subject) -> None:
    for fact in ("model_type", "architecture"):
        value = getattr(subject.spec, fact, None)
        expect(isinstance(value, str) and value, f"{fact} is {value!r}; the text in config.json belongs there")


@checks.add("config-comes-back", "An export is made only if the configuration that it writes reads back as the same model.")
def config_comes_back(subject: Subject) -> None:
    case = case_of(subject)
    for variant in case.variants:
        config = written(case, variant)
        if config is None:
            continue
        again = read_model(case.family, config, registry=case.registry)
        result = differences(variant.model, again)
        expect(not result, f"{named(variant)}, written and read back, is another model: {'; '.join(result[:3])}")


@checks.add("rules-cover-every-tensor", "A tensor without a rule is neither read nor written, so the model is another.")
def rules_cover_every_tensor(subject: Subject) -> None:
    case = case_of(subject)
    for variant in case.few:
        rules = case.family.rules(variant.model)
        for name in GPT(variant.model, device="meta").state_dict():
            expect(any(rule.match(name) is not None for rule in rules), f"{named(variant)}: no rule matches {name!r}")


@checks.add("layouts-are-inverse", "Imports join what exports split, and the reverse; where they differ, weights are wrong.")
def layouts_are_inverse(subject: Subject) -> None:
    case = case_of(subject)
    generator = torch.Generator().manual_seed(0)
    for variant in case.few:
        try:
            moves = pair(case.family, GPT(variant.model, device="meta"))
        except ExternalModelError as error:
            skip(f"not every tensor has a rule: {error.message}")
        for move in moves:
            native = _random(move, move.like.shape, generator)
            parts = move.split(native)
            expect(len(parts) == len(move.external), f"the layout of {move.native!r} splits it into {len(parts)} tensors")
            total = sum(part.numel() for part in parts)
            expect(total == native.numel(), f"the layout of {move.native!r} splits {native.numel()} elements into {total}")
            _same(move, "split and joined again", [move.join([part.contiguous() for part in parts])], [native])
            external = [_random(move, part.shape, generator) for part in parts]
            _same(move, "joined and split again", move.split(move.join(external).contiguous()), external)


def _random(move: Move, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return random numbers, or indices where the tensor has these."""
    if move.limit is not None:
        return torch.randint(move.limit, tuple(shape), generator=generator)
    return torch.randn(tuple(shape), generator=generator)


def written(case: FamilyCase, variant: Variant) -> dict[str, object] | None:
    """Return the configuration that is written for a variant; None where the family cannot write it, and says so."""
    if id(variant) not in case.written:
        try:
            case.written[id(variant)] = write_config(case.family, variant.model, case.registry)
        except (ExternalModelError, LookupError, AttributeError, TypeError, ValueError) as error:
            expect(variant.what, f"the configuration of the tiny model cannot be written: {type(error).__name__}: {error}")
            case.written[id(variant)] = None
    return case.written[id(variant)]


def _same(move: Move, how: str, result: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for one, other in zip(result, expected, strict=True):
        expect(one.shape == other.shape, f"{how}, {move.native!r} has the shape {list(one.shape)}, not {list(other.shape)}")
        expect(torch.equal(one, other), f"{how}, {move.native!r} has its elements in another order")


def named(variant: Variant) -> str:
    """Return how a message names a configuration."""
    return f"the configuration {variant.what}" if variant.what else "the tiny configuration"
