"""Embeddings, heads and initializers with one error each."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gptkit.components.embedding.modules.token import TokenEmbedding
from gptkit.components.embedding.token import TokenEmbeddingSpec
from gptkit.components.head.distillation import DistillationHeadSpec
from gptkit.components.head.linear import LinearHeadSpec
from gptkit.components.head.modules.distillation import DistillationHead
from gptkit.components.head.modules.linear import LinearHead
from gptkit.components.head.modules.multi_token import MultiTokenHead
from gptkit.components.head.multi_token import MultiTokenHeadSpec
from gptkit.components.initializer.normal import NormalSpec
from gptkit.kinds.context import BuildContext
from gptkit.nn.embedding import Embedding
from gptkit.nn.forward import Forward
from gptkit.nn.head import Head
from gptkit.nn.initial import Role
from tests.mutants.mutant import ANYTHING, Mutant, become

# A step with a cache sees one token only.
DECODING = (
    "cached-equals-full",
    "static-cache",
    "cache-reorders",
    "cache-truncates",
    "cache-marks",
    "cache-joins",
    "cache-extracts",
)


class WrongEmbedding(Mutant, TokenEmbeddingSpec):
    """Base of the embeddings below."""

    runtime: ClassVar[type[nn.Module]] = TokenEmbedding
    twin_class = TokenEmbeddingSpec

    def build(self, context: BuildContext) -> Embedding:
        made: Embedding = become(super().build(context), self.runtime)
        return made


class PositionTwice(WrongEmbedding):
    """Add the absolute position twice."""

    class Runtime(TokenEmbedding):
        def forward(self, ids_BT: Tensor, forward: Forward) -> Tensor:
            x_BTE = super().forward(ids_BT, forward)
            return x_BTE if self.position is None else self.position.embed(x_BTE, forward.positions)

    name: Literal["position-twice"] = "position-twice"
    runtime = Runtime
    caught_by = "position-once"


class SmearsTokens(WrongEmbedding):
    """Add the vector of the preceding token."""

    class Runtime(TokenEmbedding):
        def forward(self, ids_BT: Tensor, forward: Forward) -> Tensor:
            x_BTE = super().forward(ids_BT, forward)
            return x_BTE + 0.1 * torch.cat((torch.zeros_like(x_BTE[:, :1]), x_BTE[:, :-1]), dim=1)

    name: Literal["smears-tokens"] = "smears-tokens"
    runtime = Runtime
    caught_by = "documents-keep-apart"
    also = ("padding-is-ignored", "uneven-prompts-cached", *DECODING)


class LooksAhead(WrongEmbedding):
    """Add the vector of the following token."""

    class Runtime(TokenEmbedding):
        def forward(self, ids_BT: Tensor, forward: Forward) -> Tensor:
            x_BTE = super().forward(ids_BT, forward)
            return x_BTE + 0.1 * torch.cat((x_BTE[:, 1:], torch.zeros_like(x_BTE[:, :1])), dim=1)

    name: Literal["looks-ahead"] = "looks-ahead"
    runtime = Runtime
    caught_by = "embeds-causally"
    also = ("lends-its-table", "no-future-leak", "documents-keep-apart", "uneven-prompts-cached", *DECODING)


class LooksUpTheNext(WrongEmbedding):
    """Return the vector of the next id."""

    class Runtime(TokenEmbedding):
        def forward(self, ids_BT: Tensor, forward: Forward) -> Tensor:
            return super().forward((ids_BT + 1) % self.table.num_embeddings, forward)

    name: Literal["looks-up-the-next"] = "looks-up-the-next"
    runtime = Runtime
    caught_by = "lends-its-table"


class FewerIds(WrongEmbedding):
    """Return NaN for the last id."""

    class Runtime(TokenEmbedding):
        def forward(self, ids_BT: Tensor, forward: Forward) -> Tensor:
            last = ids_BT == self.table.num_embeddings - 1
            return super().forward(ids_BT, forward).masked_fill(last[..., None], torch.nan)

    name: Literal["fewer-ids"] = "fewer-ids"
    runtime = Runtime
    caught_by = "embeds"
    also = (
        *("static-cache", "bf16-and-fp32", "trains-in-bf16", "gradients", "cached-equals-full", "cache-extracts"),
        *("documents-keep-apart", "reaches-the-end", "no-future-leak", "cache-joins", "uneven-prompts-cached"),
    )


class WrongHead(Mutant, LinearHeadSpec):
    """Base of the heads below."""

    runtime: ClassVar[type[nn.Module]] = LinearHead
    twin_class = LinearHeadSpec

    def build(self, context: BuildContext, *, embedding: Embedding) -> Head:
        made: Head = become(super().build(context, embedding=embedding), self.runtime)
        return made


class CountsIgnoredTargets(WrongHead):
    """Treat ignored targets as the first token."""

    class Runtime(LinearHead):
        def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
            return super().loss(x_BTE, targets_BT.clamp_min(0), forward)

    name: Literal["counts-ignored-targets"] = "counts-ignored-targets"
    runtime = Runtime
    caught_by = "ignored-targets"
    also = ("no-targets",)


class DividesByAll(WrongHead):
    """Exclude ignored targets from the sum, but not from the number."""

    class Runtime(LinearHead):
        def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
            return super().loss(x_BTE, targets_BT, forward) * (targets_BT >= 0).double().mean()

    name: Literal["divides-by-all"] = "divides-by-all"
    runtime = Runtime
    caught_by = "ignored-targets"


class InBits(WrongHead):
    """Return the loss in bits."""

    class Runtime(LinearHead):
        def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
            return super().loss(x_BTE, targets_BT, forward) / 0.6931

    name: Literal["in-bits"] = "in-bits"
    runtime = Runtime
    caught_by = "loss-is-cross-entropy"
    also = ("ignored-targets",)


class ScalesInPlace(WrongHead):
    """Scale the final vectors in place; predictions of further tokens read them, too."""

    class Runtime(LinearHead):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE if x_BTE.requires_grad else x_BTE.mul_(1.5), forward)

    name: Literal["scales-in-place"] = "scales-in-place"
    runtime = Runtime
    caught_by = "leaves-input-alone"
    also = ANYTHING


class BoundsOnlyItsLoss(WrongHead):
    """Return logits without the soft bound of the loss."""

    class Runtime(LinearHead):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            bound, self.softcap = self.softcap, None
            logits_BTV = super().forward(x_BTE, forward)
            self.softcap = bound
            return logits_BTV

    name: Literal["bounds-only-its-loss"] = "bounds-only-its-loss"
    softcap: float | None = Field(2.0, description="Soft bound.")
    softcap_form: Literal["tanh", "sigmoid", "rational"] = Field("sigmoid", description="Its function.")
    runtime = Runtime
    caught_by = "loss-is-cross-entropy"
    also = ("ignored-targets",)


class BoundsInTraining(WrongHead):
    """Bound the loss in training only."""

    class Runtime(LinearHead):
        def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
            bound = self.softcap
            self.softcap = bound if self.training else None
            loss = super().loss(x_BTE, targets_BT, forward)
            self.softcap = bound
            return loss

    name: Literal["bounds-in-training"] = "bounds-in-training"
    softcap: float | None = Field(2.0, description="Soft bound.")
    softcap_form: Literal["tanh", "sigmoid", "rational"] = Field("rational", description="Its function.")
    runtime = Runtime
    caught_by = "loss-is-cross-entropy"
    also = ("ignored-targets",)


class ShiftsOnlyItsLogits(WrongHead):
    """Shift the logits before their bound, but not those of the loss."""

    class Runtime(LinearHead):
        def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
            bound = self.softcap
            self.softcap = None if bound is None else bound._replace(shift=0.0)
            loss = super().loss(x_BTE, targets_BT, forward)
            self.softcap = bound
            return loss

    name: Literal["shifts-only-its-logits"] = "shifts-only-its-logits"
    softcap: float | None = Field(2.0, description="Soft bound.")
    softcap_shift: float = Field(1.5, description="Added to the logits before it.")
    runtime = Runtime
    caught_by = "loss-is-cross-entropy"
    also = ("ignored-targets",)


class PenalizesInEvaluation(WrongHead):
    """Add an auxiliary loss in evaluation too."""

    class Runtime(LinearHead):
        def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
            forward.add_loss("z", 1e-3 * x_BTE.square().mean())
            return super().loss(x_BTE, targets_BT, forward)

    name: Literal["penalizes-in-evaluation"] = "penalizes-in-evaluation"
    runtime = Runtime
    caught_by = "plain-loss-in-eval"
    also = ("losses-exclude-padding", "losses-ignore-tokens")


class HalvesTheLossOfParts(WrongHead):
    """Divide the loss by the number of processes, although it is that of all token ids."""

    class Runtime(LinearHead):
        def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
            loss = super().loss(x_BTE, targets_BT, forward)
            return loss if self.vocabulary_part is None else loss / 2

    name: Literal["halves-the-loss-of-parts"] = "halves-the-loss-of-parts"
    runtime = Runtime
    caught_by = "divides-by-token"


class TeachesInEvaluation(Mutant, DistillationHeadSpec):
    """Use the teacher in evaluation, too."""

    class Runtime(DistillationHead):
        def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
            if not x_BTE.is_meta:
                self.teacher.outputs(forward)
            return super().loss(x_BTE, targets_BT, forward)

    name: Literal["teaches-in-evaluation"] = "teaches-in-evaluation"
    teacher: str = Field("runs/teacher", description="The teacher's run directory.")
    caught_by = "keeps-runs-outside"

    def build(self, context: BuildContext, *, embedding: Embedding) -> Head:
        made: Head = become(super().build(context, embedding=embedding), self.Runtime)
        return made


class HalfAGradient(WrongHead):
    """Return the correct loss with half of its gradient."""

    class Runtime(LinearHead):
        def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
            return super().loss((x_BTE + x_BTE.detach()) / 2, targets_BT, forward)

    name: Literal["half-a-gradient"] = "half-a-gradient"
    runtime = Runtime
    caught_by = "loss-is-cross-entropy"


class ScoresByNeighbors(WrongHead):
    """Logits that depend on preceding tokens."""

    class Runtime(LinearHead):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE.cumsum(dim=1), forward)

        def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
            return F.cross_entropy(self(x_BTE, forward).flatten(0, -2).float(), targets_BT.flatten())

    name: Literal["scores-by-neighbors"] = "scores-by-neighbors"
    runtime = Runtime
    caught_by = "scores-every-token"
    also = ("no-targets", *DECODING)


class ForgetsEarlierTokens(Mutant, MultiTokenHeadSpec):
    """Compute the prediction modules without their states."""

    class Runtime(MultiTokenHead):
        def predict(self, k: int, x_BTE: Tensor, following: Forward, forward: Forward) -> Tensor:
            return super().predict(k, x_BTE, following, Forward(forward.ids_BT, offset=forward.offset))

    name: Literal["forgets-earlier-tokens"] = "forgets-earlier-tokens"
    twin_class = MultiTokenHeadSpec
    caught_by = "predictions-continue"

    def build(self, context: BuildContext, *, embedding: Embedding) -> Head:
        made: Head = become(super().build(context, embedding=embedding), self.Runtime)
        return made


class GlobalNumbers(Mutant, NormalSpec):
    """Draw from torch's global generator."""

    name: Literal["global-numbers"] = "global-numbers"
    caught_by = "draws-from-the-generator"

    def fill(self, role: Role, shape: torch.Size, generator: torch.Generator, context: BuildContext) -> Tensor:
        return torch.randn(shape) * 0.02


class HalfPrecision(Mutant, NormalSpec):
    """Return weights in bf16."""

    name: Literal["half-precision"] = "half-precision"
    caught_by = "fills"

    def fill(self, role: Role, shape: torch.Size, generator: torch.Generator, context: BuildContext) -> Tensor:
        return super().fill(role, shape, generator, context).bfloat16()


class Enormous(Mutant, NormalSpec):
    """Initialize weights a thousand times too large."""

    name: Literal["enormous"] = "enormous"
    caught_by = "starts-a-model"

    def fill(self, role: Role, shape: torch.Size, generator: torch.Generator, context: BuildContext) -> Tensor:
        return super().fill(role, shape, generator, context) * 1000
