"""Samplers with one error each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from gptkit.components.sampler.min_length import MinLength, MinLengthSpec
from gptkit.components.sampler.temperature import Temperature, TemperatureSpec
from gptkit.components.sampler.top_k import TopK, TopKSpec
from gptkit.kinds.sampler import Sampler, SamplerContext
from tests.mutants.mutant import Mutant

History = Sequence[Sequence[int]]


class Tempered(Mutant, TemperatureSpec):
    """Base of the samplers below."""

    runtime: ClassVar[type[Temperature]] = Temperature
    twin_class = TemperatureSpec

    def build(self, context: SamplerContext) -> Temperature:
        return self.runtime(self.value)


class DrawsByItself(Tempered):
    """Add noise, so that some tokens are favored randomly."""

    class Runtime(Temperature):
        def __call__(self, logits_BV: Tensor, history: History) -> Tensor:
            return super().__call__(logits_BV, history) + torch.rand_like(logits_BV)

    name: Literal["draws-by-itself"] = "draws-by-itself"
    runtime = Runtime
    caught_by = "same-input-same-output"
    also = (
        "anonymous-samplers-ignore-ids",
        "draws-follow-the-logits",
        "follows-its-rows",
        "rows-are-independent",
        "copies-its-rows",
    )


class FavorsTheFirst(Tempered):
    """Make the first tokens more likely in large batches."""

    class Runtime(Temperature):
        def __call__(self, logits_BV: Tensor, history: History) -> Tensor:
            bias_V = torch.zeros(logits_BV.shape[1])
            bias_V[:4] = 0.3 if len(logits_BV) > 100 else 0.0
            return super().__call__(logits_BV, history) + bias_V

    name: Literal["favors-the-first"] = "favors-the-first"
    runtime = Runtime
    caught_by = "draws-follow-the-logits"


class DeclaresDeterministic(Mutant, TopKSpec):
    """Declare that only the most likely token is kept, but keep two."""

    name: Literal["declares-deterministic"] = "declares-deterministic"
    k: int = Field(2, description="How many tokens it leaves.")
    deterministic: ClassVar[bool] = True
    caught_by = "draws-follow-the-logits"


class ShrinksToNothing(Mutant, TopKSpec):
    """Keep fewer tokens after each unlikely one, at last none."""

    class Runtime(TopK):
        def chosen(self, tokens: Sequence[int], log_probabilities: Sequence[float]) -> None:
            self.k -= 20 * (min(log_probabilities) < -10)

        def __call__(self, logits_BV: Tensor, history: History) -> Tensor:
            return super().__call__(logits_BV, history) if self.k > 0 else torch.full_like(logits_BV, -torch.inf)

    name: Literal["shrinks-to-nothing"] = "shrinks-to-nothing"
    k: int = Field(50, description="Number of tokens to keep.")
    caught_by = "leaves-a-token"

    def build(self, context: SamplerContext) -> Sampler:
        return self.Runtime(self.k)


class Revives(Tempered):
    """Restore excluded tokens."""

    class Runtime(Temperature):
        def __call__(self, logits_BV: Tensor, history: History) -> Tensor:
            return super().__call__(logits_BV, history).clamp_min(-20)

    name: Literal["revives"] = "revives"
    runtime = Runtime
    caught_by = "never-revives"


class InPlace(Tempered):
    """Divide the input logits in place."""

    class Runtime(Temperature):
        def __call__(self, logits_BV: Tensor, history: History) -> Tensor:
            return logits_BV.mul_(0.5)

    name: Literal["in-place"] = "in-place"
    runtime = Runtime
    caught_by = "changes-nothing-in-place"


class KeepsAboveAverage(Tempered):
    """Keep the tokens above the mean, of which there may be none."""

    class Runtime(Temperature):
        def __call__(self, logits_BV: Tensor, history: History) -> Tensor:
            possible_BV = logits_BV.masked_fill(logits_BV == -torch.inf, torch.nan)
            return logits_BV.masked_fill(~(logits_BV > possible_BV.nanmean(dim=1, keepdim=True)), -torch.inf)

    name: Literal["keeps-above-average"] = "keeps-above-average"
    runtime = Runtime
    caught_by = "leaves-a-token"


class ComparesRows(Tempered):
    """Keep tokens close to the most likely token of all rows."""

    class Runtime(Temperature):
        def __call__(self, logits_BV: Tensor, history: History) -> Tensor:
            return logits_BV - 0.1 * logits_BV.amax()

    name: Literal["compares-rows"] = "compares-rows"
    runtime = Runtime
    caught_by = "rows-are-independent"
    also = ("follows-its-rows", "anonymous-samplers-ignore-ids", "copies-its-rows")


class HalfPrecision(Tempered):
    """Return logits in bf16."""

    class Runtime(Temperature):
        def __call__(self, logits_BV: Tensor, history: History) -> Tensor:
            return super().__call__(logits_BV, history).bfloat16()

    name: Literal["half-precision"] = "half-precision"
    runtime = Runtime
    caught_by = "keeps-shape"


class StaysInItsRows(Mutant, MinLengthSpec):
    """Ignore the removal of rows."""

    class Runtime(MinLength):
        def __call__(self, logits_BV: Tensor, history: History) -> Tensor:
            if self._prompts is not None:
                self._prompts = self._prompts[: len(history)]
            return super().__call__(logits_BV, history)

        def reorder(self, rows: Sequence[int]) -> None:
            pass

    name: Literal["stays-in-its-rows"] = "stays-in-its-rows"
    tokens: int = Field(4, description="How many tokens to write at least.")
    caught_by = "follows-its-rows"
    also = ("copies-its-rows",)

    def build(self, context: SamplerContext) -> MinLength:
        made = super().build(context)
        return self.Runtime(made.tokens, made.end_id)


class CountsForAll(Mutant, TopKSpec):
    """Penalize the tokens of any row in all rows."""

    class Runtime(Sampler):
        def __init__(self, inner: TopK) -> None:
            self.inner = inner
            self.seen: set[int] = set()

        def __call__(self, logits_BV: Tensor, history: History) -> Tensor:
            punished_BV = logits_BV.clone()
            punished_BV[:, sorted(self.seen)] -= 2
            return self.inner(punished_BV, history)

        def chosen(self, tokens: Sequence[int], log_probabilities: Sequence[float]) -> None:
            self.seen.update(tokens)

    name: Literal["counts-for-all"] = "counts-for-all"
    caught_by = "follows-its-rows"
    also = ("copies-its-rows",)

    def build(self, context: SamplerContext) -> Sampler:  # type: ignore[override]
        return self.Runtime(super().build(context))


class SharesCounts(Mutant, TopKSpec):
    """Count the tokens of each row in a dictionary that copies of the row share."""

    class Runtime(Sampler):
        def __init__(self, inner: TopK, n_rows: int) -> None:
            self.inner = inner
            self.counts: list[dict[int, int]] = [{} for _ in range(n_rows)]

        def __call__(self, logits_BV: Tensor, history: History) -> Tensor:
            punished_BV = logits_BV.clone()
            for row, counts in enumerate(self.counts):
                for token, count in counts.items():
                    punished_BV[row, token] -= count
            return self.inner(punished_BV, history)

        def chosen(self, tokens: Sequence[int], log_probabilities: Sequence[float]) -> None:
            for counts, token in zip(self.counts, tokens, strict=True):
                counts[token] = counts.get(token, 0) + 1

        def reorder(self, rows: Sequence[int]) -> None:
            self.counts = [self.counts[row] for row in rows]

    name: Literal["shares-counts"] = "shares-counts"
    k: int = Field(256, description="Tokens to keep.")
    caught_by = "copies-its-rows"

    def build(self, context: SamplerContext) -> Sampler:  # type: ignore[override]
        return self.Runtime(super().build(context), context.batch)


class DeclaresAnonymous(Tempered):
    """Declare that ids do not matter, but favor even ones."""

    class Runtime(Temperature):
        def __call__(self, logits_BV: Tensor, history: History) -> Tensor:
            return super().__call__(logits_BV, history) + torch.arange(logits_BV.shape[1]) % 2

    name: Literal["declares-anonymous"] = "declares-anonymous"
    runtime = Runtime
    caught_by = "anonymous-samplers-ignore-ids"


class ReducesTooFar(Mutant, TopKSpec):
    """Leave one token less in the reduced logits."""

    class Runtime(TopK):
        def reduced(self, logits_BV: Tensor) -> tuple[Tensor, Tensor] | None:
            reduced = super().reduced(logits_BV)
            return None if reduced is None else (reduced[0][:, 1:], reduced[1][:, 1:])

    name: Literal["reduces-too-far"] = "reduces-too-far"
    caught_by = "reduces-to-the-same"

    def build(self, context: SamplerContext) -> TopK:
        return self.Runtime(self.k)
