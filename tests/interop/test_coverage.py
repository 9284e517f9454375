"""Every causal language model of transformers is read by a family, or listed with the reason why none reads it."""

from __future__ import annotations

import pytest

from gptkit.docs.uncovered import reasons
from gptkit.interop.conversion import families
from gptkit.interop.wrappers import wrappers

transformers = pytest.importorskip("transformers")


def covered() -> set[str]:
    """Return the model types that the registered families read, also as language models of multimodal ones."""
    own = {model_type for family in families().values() for model_type in (family.model_type, *family.other_model_types())}
    return own | set(wrappers())


def causal() -> set[str]:
    """Return the model types for which transformers has a causal language model."""
    mapping = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return set(mapping)


def test_every_causal_model_of_transformers_is_covered_or_has_a_reason() -> None:
    missing = sorted(causal() - covered() - set(reasons()))
    assert not missing, f"add a family, or a line to gptkit/interop/uncovered.toml, for each of: {', '.join(missing)}"


def test_no_listed_model_has_a_family() -> None:
    stale = sorted(set(reasons()) & covered())
    assert not stale, f"families read these now; remove their lines from gptkit/interop/uncovered.toml: {', '.join(stale)}"


def test_every_listed_model_is_one_of_transformers() -> None:
    stale = sorted(set(reasons()) - causal())
    assert not stale, f"transformers has no such models; remove from gptkit/interop/uncovered.toml: {', '.join(stale)}"


def test_each_reason_is_one_line() -> None:
    assert all(reason.strip() == reason and reason and "\n" not in reason for reason in reasons().values())
