"""Positions and rotary scalings with one error each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from gptkit.components.position.alibi import AlibiSpec
from gptkit.components.position.learned import LearnedSpec
from gptkit.components.position.modules.alibi import AlibiPosition
from gptkit.components.position.modules.learned import LearnedPosition
from gptkit.components.position.modules.rotary import Prepared, RotaryPosition
from gptkit.components.position.none import NoPositionSpec
from gptkit.components.position.rotary import RotarySpec
from gptkit.components.rotary_scaling.dynamic import DynamicScalingSpec
from gptkit.components.rotary_scaling.linear import LinearScalingSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.nn.position import Position
from tests.mutants.mutant import ANYTHING, Mutant, become

DECODING = ("static-cache", "cache-reorders", "cache-truncates", "cache-marks", "cache-joins", "uneven-prompts-cached")


class DependsOnPosition(Mutant, AlibiSpec):
    """Bias that depends on the key's position."""

    class Runtime(AlibiPosition):
        def bias(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
            location = key_positions[..., None, :] if key_positions.dim() == 1 else key_positions[:, None, None, :]
            return super().bias(query_positions, key_positions) * (1 + 0.1 * location)

    name: Literal["depends-on-position"] = "depends-on-position"
    score_function: ClassVar[bool] = False
    caught_by = "distance-only"

    def build(self, context: BuildContext, *, heads: HeadShape) -> AlibiPosition:
        made: AlibiPosition = become(super().build(context.replace(shared={}), heads=heads), self.Runtime)
        return made


class TableOnTheCPU(Mutant, AlibiSpec):
    """Look up distances in a table that is created without a device."""

    class Runtime(AlibiPosition):
        def bias(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
            return super().bias(torch.arange(4096)[query_positions % 4096], key_positions)

    name: Literal["table-on-the-cpu"] = "table-on-the-cpu"
    score_function: ClassVar[bool] = False
    caught_by = "one-device"

    def build(self, context: BuildContext, *, heads: HeadShape) -> AlibiPosition:
        made: AlibiPosition = become(super().build(context.replace(shared={}), heads=heads), self.Runtime)
        return made


class ChunkedFromHere(Mutant, AlibiSpec):
    """Bias that begins again every 64 tokens of a call."""

    class Runtime(AlibiPosition):
        def bias(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
            bias = super().bias(query_positions, key_positions)
            return bias + 2 * (bias.shape[-1] // 64) * (torch.arange(bias.shape[-1], device=bias.device) % 2)

    name: Literal["chunked-from-here"] = "chunked-from-here"
    score_function: ClassVar[bool] = False
    caught_by = "long-texts"

    def build(self, context: BuildContext, *, heads: HeadShape) -> AlibiPosition:
        made: AlibiPosition = become(super().build(context.replace(shared={}), heads=heads), self.Runtime)
        return made


class UndeclaredHook(Mutant, AlibiSpec):
    """Bias that is not declared, so that it is never applied."""

    name: Literal["undeclared-hook"] = "undeclared-hook"
    uses: ClassVar[frozenset[str]] = frozenset()
    score_function: ClassVar[bool] = False
    caught_by = "hooks-are-declared"


class MissingHook(Mutant, NoPositionSpec):
    """Declare a bias that does not exist."""

    name: Literal["missing-hook"] = "missing-hook"
    uses: ClassVar[frozenset[str]] = frozenset({"bias"})
    caught_by = "builds-on-meta"  # without the hook, the model is not built
    also = ANYTHING

    def build(self, context: BuildContext, *, heads: HeadShape) -> Position:
        return Position()


class OtherScoreFunction(Mutant, AlibiSpec):
    """Score function with twice the slope of the bias."""

    class Runtime(AlibiPosition):
        def score_mod(self, query_positions: Tensor, key_positions: Tensor) -> Callable[..., Tensor]:
            return super().score_mod(2 * query_positions, 2 * key_positions)

    name: Literal["other-score-function"] = "other-score-function"
    caught_by = "score-function"

    def build(self, context: BuildContext, *, heads: HeadShape) -> AlibiPosition:
        made: AlibiPosition = become(super().build(context.replace(shared={}), heads=heads), self.Runtime)
        return made


class WidensUndeclared(Mutant, RotarySpec):
    """Double the width of queries and keys without declaring it."""

    class Runtime(RotaryPosition):
        def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, prepared: Any) -> tuple[Tensor, Tensor]:
            q, k = super().rotate(q_BHTD, k_BKTD, prepared)
            return torch.cat((q, q), dim=-1), torch.cat((k, k), dim=-1)

    name: Literal["widens-undeclared"] = "widens-undeclared"
    caught_by = "hooks-are-declared"
    also = ANYTHING

    def build(self, context: BuildContext, *, heads: HeadShape) -> RotaryPosition:
        made: RotaryPosition = become(super().build(context.replace(shared={}), heads=heads), self.Runtime)
        return made


class TurnsByTheCallsLength(Mutant, RotarySpec):
    """Angles relative to the number of tokens of the call."""

    class Runtime(RotaryPosition):
        def prepare(self, positions: Tensor) -> Prepared:
            return super().prepare(positions * (8 / positions.shape[-1]))

    name: Literal["turns-by-the-calls-length"] = "turns-by-the-calls-length"
    caught_by = "cached-equals-full"
    also = (*DECODING, "documents-keep-apart", "padding-is-ignored", "cache-extracts")

    def build(self, context: BuildContext, *, heads: HeadShape) -> RotaryPosition:
        made: RotaryPosition = become(RotaryPosition(self, context, heads.d_head), self.Runtime)
        return made


class CountsFromTheCall(Mutant, LearnedSpec):
    """Use the first vector of the table for the first token of every call."""

    class Runtime(LearnedPosition):
        def embed(self, x_BTE: Tensor, positions: Tensor) -> Tensor:
            return super().embed(x_BTE, torch.arange(x_BTE.shape[1], device=x_BTE.device))

    name: Literal["counts-from-the-call"] = "counts-from-the-call"
    caught_by = "cached-equals-full"
    also = (*DECODING, "documents-keep-apart", "padding-is-ignored", "cache-extracts")

    def build_embedding(self, context: BuildContext) -> LearnedPosition:
        made: LearnedPosition = become(super().build_embedding(context), self.Runtime)
        return made


class EndsTooEarly(Mutant, LearnedSpec):
    """Table without a vector for the last token of the context."""

    class Runtime(LearnedPosition):
        def embed(self, x_BTE: Tensor, positions: Tensor) -> Tensor:
            if int(positions.max()) >= self.table.num_embeddings - 1:
                raise IndexError("index out of range")
            return super().embed(x_BTE, positions)

    name: Literal["ends-too-early"] = "ends-too-early"
    caught_by = "reaches-the-end"
    also = ("finite-far-out", "long-texts")

    def build_embedding(self, context: BuildContext) -> LearnedPosition:
        made: LearnedPosition = become(super().build_embedding(context), self.Runtime)
        return made


class Overflows(Mutant, RotarySpec):
    """Queries grow with their position and keys shrink, as in xPos without blocks, until the powers overflow."""

    class Runtime(RotaryPosition):
        def prepare(self, positions: Tensor) -> Any:
            power = 1.002 ** (positions.float() if positions.dim() == 1 else positions[:, None].float())[..., None]
            return super().prepare(positions), power

        def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, prepared: Any) -> tuple[Tensor, Tensor]:
            angles, power = prepared
            q_BHTD, k_BKTD = super().rotate(q_BHTD, k_BKTD, angles)
            return q_BHTD * power.to(q_BHTD.dtype), k_BKTD / power.to(k_BKTD.dtype)

    name: Literal["overflows"] = "overflows"
    caught_by = "finite-far-out"

    def build(self, context: BuildContext, *, heads: HeadShape) -> RotaryPosition:
        made: RotaryPosition = become(RotaryPosition(self, context, heads.d_head), self.Runtime)
        return made


class ChangesUndeclared(Mutant, DynamicScalingSpec):
    """Do not declare that longer texts have other frequencies."""

    name: Literal["changes-untold"] = "changes-untold"
    caught_by = "lengths"

    def changes_between(self, old: int, new: int, context: BuildContext) -> bool:
        return False


class DoublePrecision(Mutant, LinearScalingSpec):
    """Return frequencies in fp64."""

    name: Literal["double-precision"] = "double-precision"
    caught_by = "frequencies"

    def frequencies(self, base: float, d_rotary: int, context: BuildContext) -> Tensor:
        return super().frequencies(base, d_rotary, context).double()


class RotatesInPlace(Mutant, RotarySpec):
    """Change the queries that the attention passes."""

    class Runtime(RotaryPosition):
        def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, prepared: Any) -> tuple[Tensor, Tensor]:
            q, k = super().rotate(q_BHTD, k_BKTD, prepared)
            return q_BHTD.copy_(q), k

    name: Literal["rotates-in-place"] = "rotates-in-place"
    caught_by = "leaves-input-alone"
    also = ANYTHING

    def build(self, context: BuildContext, *, heads: HeadShape) -> RotaryPosition:
        made: RotaryPosition = become(RotaryPosition(self, context, heads.d_head), self.Runtime)
        return made
