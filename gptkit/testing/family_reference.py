"""Checks of families against the classes of transformers that compute the same models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from gptkit.core.errors import ExternalModelError
from gptkit.interop.conversion import read_model
from gptkit.interop.differences import differences
from gptkit.testing.check import Checks, ContractError, NotApplicableError, expect, skip
from gptkit.testing.configurations import Variant
from gptkit.testing.family import FamilyCase, case_of, named, written
from gptkit.testing.reference import ReferencePair, known_to_reference, native_model, reference_classes
from gptkit.testing.subject import Subject

__all__ = ["checks"]

checks = Checks()

TOLERANCE = 1e-4
"""Difference of logits that rounding in fp32 explains, as a share of the largest logit."""


@checks.add("names-the-reference-class", "An export is loaded by the class that it names, which computes the model.")
def names_the_reference_class(subject: Subject) -> None:
    family = case_of(subject).family
    config_class, model_class = reference_classes(family)
    if family.reference() is None:
        name = family.architecture
        expect(name == model_class.__name__, f"architecture is {name!r}, and {model_class.__name__!r} computes such models")
    else:
        expect(isinstance(config_class, type) and isinstance(model_class, type), "`reference` returns two classes")


@checks.add("defaults-equal-the-reference", "A key that a file lacks has the default of the class that wrote the file.")
def defaults_are_the_references(subject: Subject) -> None:
    case = case_of(subject)
    for config in case.defaults:
        data = known_to_reference(case.family, config)
        try:
            expected = read_model(case.family, data, "the reference's configuration", case.registry)
            result = read_model(case.family, config, "the tiny configuration", case.registry)
        except ExternalModelError as error:
            raise ContractError(error.message) from error
        changes = differences(result, expected)
        expect(not changes, f"with every other key missing, {'; '.join(changes[:4])} as the reference has it")


@checks.add("leaves-nothing-to-defaults", "A key that an export lacks has the default of the class that loads it.")
def leaves_nothing_to_defaults(subject: Subject) -> None:
    case = case_of(subject)
    _readable(case)
    for variant in case.variants:
        config = written(case, variant)
        if config is None:
            continue
        data = known_to_reference(case.family, config)
        try:
            again = read_model(case.family, data, "what the reference reads", case.registry)
        except ExternalModelError as error:
            raise ContractError(error.message) from error
        changes = differences(variant.model, again)
        expect(not changes, f"{named(variant)}: of what is written the reference reads {'; '.join(changes[:4])}")


@checks.add("reads-the-reference-tensors", "A tensor that is not read, or not there, makes an import fail.")
def reads_the_references_tensors(subject: Subject) -> None:
    for variant, made in _made(subject, _readable(case_of(subject))):
        if isinstance(made, ExternalModelError):
            raise ContractError(f"{named(variant)}: {made.message}") from made


@checks.add("equals-the-reference", "An imported model computes what the reference does, or is another model.")
def equals_the_reference(subject: Subject) -> None:
    for variant, each in _imported(subject):
        _close(each.native_logits(), each.expected_BTV, f"{named(variant)}, all tokens at once")


@checks.add("each-option-equals-the-reference", "As `equals-the-reference`, with each option changed alone.", slow=True)
def each_option_equals_the_reference(subject: Subject) -> None:
    _readable(case_of(subject))
    for variant, made in _made(subject, case_of(subject).variants):
        if isinstance(made, ExternalModelError):
            raise ContractError(f"{named(variant)}: {made.message}") from made
        _close(made.native_logits(), made.expected_BTV, f"{named(variant)}, all tokens at once")


@checks.add("equals-the-reference-cached", "Generation decodes token by token with a cache, and must give the same logits.")
def equals_the_reference_cached(subject: Subject) -> None:
    for variant, each in _equal(subject):
        result, expected = each.cached_logits(), each.expected_BTV
        if any(layer.position.depends_on_length for layer in each.native.spec.layer_specs()):
            # The logits of an earlier token depend on how long the text was then.
            result, expected = result[:, -1:], expected[:, -1:]
        _close(result, expected, f"{named(variant)}, token by token with a cache")


@checks.add("equals-the-reference-padded", "Prompts of uneven length share a batch by padding, which must change nothing.")
def equals_the_reference_padded(subject: Subject) -> None:
    for variant, each in _equal(subject):
        _close(each.padded_logits(), each.expected_BTV, f"{named(variant)}, behind padding tokens")


@checks.add("round-trip-keeps-weights", "What is imported, exported and imported again has the same numbers.")
def round_trip_keeps_weights(subject: Subject) -> None:
    for variant, each in _imported(subject):
        exported = each.exported_tensors()
        # Constants are not read, and may not be used: `export-equals-the-reference` compares what the reference computes.
        constants = each.family.constants(each.native.spec)
        for name, tensor in exported.items():
            # A tied weight is stored under one of its names.
            same = name not in each.tensors or name in constants or torch.equal(tensor, each.tensors[name])
            expect(same, f"{named(variant)}, imported and exported: {name} has other numbers")
        own = each.native.state_dict()
        again = native_model(each.family, each.native.spec, exported, "the export").state_dict()
        for name, tensor in own.items():
            same = torch.equal(tensor, again[name])
            expect(same, f"{named(variant)}, exported and imported again: {name} has other numbers")


@checks.add("export-equals-the-reference", "The reference class loads an export, without a missing or left-over tensor.")
def export_equals_the_reference(subject: Subject) -> None:
    for variant, each in _imported(subject):
        if written(case_of(subject), variant) is None:
            continue
        with TemporaryDirectory(prefix="gptkit-check-") as directory:
            each.export(Path(directory), case_of(subject).registry)
            how = f"{named(variant)}, exported and loaded by the reference"
            _close(each.exported_logits(Path(directory)), each.expected_BTV, how, 1e-5)


_Made = list[tuple[Variant, ReferencePair | ExternalModelError]]
_models: WeakKeyDictionary[Subject, _Made] = WeakKeyDictionary()


def _made(subject: Subject, variants: Sequence[Variant]) -> _Made:
    """Return the models of configurations, as both compute them; errors in place of those that are not imported."""
    case, known = case_of(subject), _models.setdefault(subject, [])
    for variant in variants:
        if any(variant is each for each, _ in known):
            continue
        try:
            known.append((variant, ReferencePair.of(case.family, variant.config, case.registry)))
        except ExternalModelError as error:
            known.append((variant, error))
        except NotApplicableError:
            # The reference class takes a combination of options that it cannot compute.
            if not variant.what:
                raise
    return [(variant, made) for variant, made in known if any(variant is each for each in variants)]


def _readable(case: FamilyCase) -> list[Variant]:
    """Return a few configurations; the check is skipped where the family cannot read those of the reference class."""
    reference_classes(case.family)
    for config in case.defaults:
        try:
            read_model(case.family, known_to_reference(case.family, config), registry=case.registry)
        except (ContractError, ExternalModelError) as error:
            skip(f"the reference's configuration is not read: {error}")
    return case.few


def _imported(subject: Subject) -> Iterator[tuple[Variant, ReferencePair]]:
    for variant, made in _made(subject, _readable(case_of(subject))):
        if isinstance(made, ExternalModelError):
            skip("the tensors of the reference are not read")
        yield variant, made


def _equal(subject: Subject) -> Iterator[tuple[Variant, ReferencePair]]:
    """Yield the models whose logits are equal; the check is skipped where they are not."""
    for variant, each in _imported(subject):
        if _distance(each.native_logits(), each.expected_BTV) > TOLERANCE:
            skip("the logits of all tokens at once differ already")
        yield variant, each


def _distance(result: Tensor, expected: Tensor) -> float:
    distance = float((result - expected).abs().max() / expected.abs().max())
    return float("inf") if distance != distance else distance


def _close(result: Tensor, expected: Tensor, how: str, tolerance: float = TOLERANCE) -> None:
    distance = _distance(result, expected)
    expect(distance <= tolerance, f"{how}, the logits differ from the reference's by {distance:.1e} of the largest")
