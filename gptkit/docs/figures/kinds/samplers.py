"""Samplers: a distribution of the next token, before and after.

Shapes: B batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from gptkit.core.component import Component
from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry
from gptkit.docs.figures.figure import Figure
from gptkit.docs.figures.plot import Plot, Series
from gptkit.docs.figures.subjects import named, subjects
from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec
from gptkit.kinds.tokenizer import Tokenizer, TokenizerSpec
from gptkit.testing.subject import Subject

__all__ = ["draw"]

SHOWN, STEPS = 13, 30
PROMPT = "the heat and the rain: the "
LETTERS = "etaoinshrdlucmfwy"


@torch.no_grad()
def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return the distribution after a text, before and after the first configuration that changes it."""
    tokenizer = _tokenizer(registry)
    for subject in _variants(subjects(cls, registry)):
        spec = cast("SamplerSpec", subject.spec)
        texts = [PROMPT, *(PROMPT + cut for text in _strings(spec) for cut in (text[:-1], text) if cut)]
        for text in texts:
            change = _changed(spec, tokenizer, text)
            if change is not None:
                return _figure(named(subject), tokenizer, *change)
    raise GptkitError("no configuration changes a distribution", hint="Give it `examples` that change some.")


def _variants(given: Sequence[Subject]) -> Iterator[Subject]:
    """Yield the configurations, then those in which one number is another, for samplers that change little by default."""
    yield from given
    for subject in given:
        for name, value in ((name, getattr(subject.spec, name)) for name in type(subject.spec).model_fields):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            for factor in (0.5, 2, 0.1, 0.01):
                other = type(value)(value * factor)
                try:
                    yield Subject(subject.spec.replace(**{name: other}), subject.registry)
                except ValidationError:
                    continue


def _tokenizer(registry: Registry) -> Tokenizer:
    spec = registry.component("tokenizer", "byte").model_validate({"name": "byte"}, context={"registry": registry})
    return cast("TokenizerSpec", spec).fit(iter(()))


def _changed(spec: SamplerSpec, tokenizer: Tokenizer, text: str) -> tuple[Tensor, Tensor, str] | None:
    """Return the distributions before and after, and the text, once the sampler has changed one; None if it does not."""
    logits_BV = _logits(spec, tokenizer)
    size = tokenizer.vocab_size
    context = SamplerContext(size, 1, tokenizer, ("0",), limits=(STEPS,), reader=lambda: _Reader(size))
    sampler: Sampler = spec.build(context)
    history = list(tokenizer.encode(text))
    for _ in range(STEPS):
        after_BV = sampler(logits_BV.clone(), [history])
        before_V, after_V = logits_BV[0].softmax(-1), after_BV[0].softmax(-1)
        if float((before_V - after_V).abs().max()) > 0.004 or bool(((after_V == 0) & (before_V > 0)).any()):
            return before_V, after_V, tokenizer.decode(history)
        token = int(after_V[:-1].argmax())
        sampler.chosen([token], [float(after_V[token].clamp_min(1e-9).log())])
        history = [*history, token]
    return None


def _logits(spec: SamplerSpec, tokenizer: Tokenizer) -> Tensor:
    """Return logits, (1, V), of letters, of the end token, and of the ids and texts that the spec's fields name."""
    named_ids = [number for number in _integers(spec) if 0 <= number < 256]
    ends = [text[at].encode()[0] for text in _strings(spec) for at in (0, -1)]
    letters = list(LETTERS.encode())
    end = [] if tokenizer.end_id is None else [tokenizer.end_id]
    order = dict.fromkeys([letters[0], *end, *letters[1:3], *[*named_ids, *ends][:6], *letters[3:]])
    shown = list(order)[:SHOWN]
    logits_BV = torch.full((1, tokenizer.vocab_size), -torch.inf)
    logits_BV[0, shown] = torch.tensor([2.6 - 0.35 * rank - 0.03 * rank**2 for rank in range(len(shown))])
    return logits_BV


def _figure(label: str, tokenizer: Tokenizer, before_V: Tensor, after_V: Tensor, text: str) -> Figure:
    shown = before_V.argsort(descending=True, stable=True)[: int((before_V > 0).sum())].tolist()
    names = [_name(tokenizer, token) for token in shown]
    before = Series([(index, float(before_V[token])) for index, token in enumerate(shown)], "before", 2, "outline")
    after = Series([(index, float(after_V[token])) for index, token in enumerate(shown)], "after", 1, "bars")
    gone = [(float(index), 0.0) for index, token in enumerate(shown) if float(after_V[token]) == 0]
    left = len(shown) - len(gone)
    described = (
        f"{left} of {len(shown)} tokens are left; the largest probability changes from {before_V.max():.2f} to "
        f"{after_V.max():.2f}."
    )
    series = [after, before, *([Series(gone, "excluded", 3, "points")] if gone else [])]
    plot = Plot("probability of the next token", "token", "", series, described, names=names)
    shown_text = text if len(text) <= 36 else f"…{text[-35:]}"
    configured = f" {label[0].upper()}{label[1:]}." if label else " With its defaults."
    return Figure([plot], f"Computed for {len(shown)} tokens after the text “{shown_text}”.{configured}")


def _name(tokenizer: Tokenizer, token: int) -> str:
    if token == tokenizer.end_id:
        return "end"
    text = tokenizer.decode([token])
    return text if text.isprintable() and text.strip() and text != "\ufffd" else f"#{token}"


class _Reader:
    """Logits of other texts, as a model would return them: they depend on the last token."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size

    def __call__(self, texts: Sequence[Sequence[int]]) -> Tensor:
        ids_V = torch.arange(self._vocab_size)
        return torch.stack([torch.sin(ids_V * (1.0 + text[-1])) for text in texts])

    def reorder(self, rows: Sequence[int]) -> None:
        """Nothing to do without a cache."""


def _strings(value: Any) -> list[str]:
    """Return the texts in a spec's fields, without names of choices."""
    return [each for each in _leaves(value) if isinstance(each, str) and each]


def _integers(value: Any) -> list[int]:
    return [each for each in _leaves(value) if isinstance(each, int) and not isinstance(each, bool)]


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, BaseModel):
        for name, info in type(value).model_fields.items():
            if name != "name" and "Literal" not in str(info.annotation):
                yield from _leaves(getattr(value, name))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, (tuple, list, set, frozenset)):
        for item in value:
            yield from _leaves(item)
    else:
        yield value
