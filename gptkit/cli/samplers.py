"""Parse the samplers, the decoding and the drafter given on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gptkit.core.errors import GptkitError
from gptkit.core.registry import default_registry
from gptkit.core.spec import Spec
from gptkit.files.options import parse_option
from gptkit.kinds.decoding import DecodingSpec
from gptkit.kinds.drafter import DrafterSpec
from gptkit.kinds.sampler import SamplerSpec

__all__ = ["chain", "decoding", "described", "drafter"]

_ANOTHER = re.compile(r",\s*[a-z][\w.-]*\s*(=|$)")

_OPTIONS = {"sampler": "--sampler", "decoding": "--decoding", "drafter": "--speculate"}
_EXAMPLES = {"decoding": "--decoding '{name: beam, width: 8}'", "drafter": "--speculate '{name: ngram, k: 6, min_n: 1}'"}


class _Chain(Spec):
    sampler: tuple[SamplerSpec, ...]


class _Decoding(Spec):
    decoding: DecodingSpec


class _Drafter(Spec):
    drafter: DrafterSpec


def chain(links: Sequence[str]) -> tuple[SamplerSpec, ...]:
    """Parse samplers such as ``["temperature=0.8", "top-k=40", "greedy"]``; each may also be a YAML mapping.

    Raises:
        SpecError: a sampler is invalid.
        GptkitError: the sampler is unknown, or takes no value.
    """
    samplers: list[SamplerSpec] = []
    for link in links:
        # Parsed one by one, so that an error is reported with its option.
        text = f"[{_link('sampler', link)}]"
        samplers += parse_option(_Chain, "sampler", text, f"--sampler {link}", skip=2).sampler
    return tuple(samplers)


def decoding(text: str) -> DecodingSpec:
    """Parse a decoding such as ``beam``, ``beam=8`` (its first field) or a YAML mapping.

    Raises:
        SpecError: the decoding is invalid.
        GptkitError: the decoding is unknown, or takes no value.
    """
    return parse_option(_Decoding, "decoding", _link("decoding", text), f"--decoding {text}").decoding


def drafter(text: str) -> DrafterSpec:
    """Parse a drafter such as ``ngram``, ``draft-run=runs/small`` (its first field) or a YAML mapping.

    Raises:
        SpecError: the drafter is invalid.
        GptkitError: the drafter is unknown, or takes no value.
    """
    return parse_option(_Drafter, "drafter", _link("drafter", text), f"--speculate {text}").drafter


def described(samplers: Sequence[SamplerSpec]) -> str:
    """Format the chain in one line, such as ``temperature value 0.8 → top-k k 40``: first fields, and changed ones."""
    from gptkit.reflect.snippets import flow, plain

    def words(sampler: SamplerSpec) -> str:
        first, *others = [field for field in type(sampler).model_fields if field != "name"] or [""]
        changed = [
            field
            for field in others
            if getattr(sampler, field) != type(sampler).model_fields[field].get_default(call_default_factory=True)
        ]
        fields = [first, *changed] if first else []
        return " ".join([sampler.name, *(f"{field} {flow(plain(getattr(sampler, field)))}" for field in fields)])

    return " → ".join(map(words, samplers)) or "none"


def _link(kind: str, text: str) -> str:
    """Convert ``top-k=40`` to YAML; the value sets the first field of the component."""
    name, equals, value = text.partition("=")
    if text.lstrip().startswith("{"):
        return text
    if _ANOTHER.search(text):
        if kind == "sampler":
            parts = " ".join(f"--sampler {part.strip()}" for part in text.split(","))
            raise GptkitError(f"--sampler {text} contains several samplers", hint=f"Repeat the option: {parts}.")
        example = _EXAMPLES[kind]
        raise GptkitError(f"{_OPTIONS[kind]} {text} has several fields", hint=f"Use a mapping, for example {example}.")
    if not equals:
        return text
    fields = [field for field in default_registry().component(kind, name).model_fields if field != "name"]
    if not fields:
        raise GptkitError(f"{kind} {name!r} takes no value", hint=f"Use {_OPTIONS[kind]} {name}.")
    return f"{{name: {name}, {fields[0]}: {value}}}"
