"""Runtime module of head `linear`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.embedding import Embedding
from gptkit.nn.forward import Forward
from gptkit.nn.head import IGNORED, Head
from gptkit.nn.initial import Initial
from gptkit.nn.linear import TransformedLinear
from gptkit.nn.packed import Matrix, as_tensor, linear
from gptkit.ops.linear_cross_entropy import linear_cross_entropy
from gptkit.ops.softcap import Softcap, bound

if TYPE_CHECKING:
    from gptkit.components.head.linear import LinearHeadSpec

__all__ = ["LinearHead"]


class LinearHead(Head):
    """Runtime part of `LinearHeadSpec`.

    A tied head reads the table through the embedding and has no weight of its own, so the parameter occurs once in the
    model, its state and its checkpoints.
    """

    loss_weight_limits: ClassVar[Mapping[str, float]] = {"label_smoothing": 1.0}

    def __init__(self, spec: LinearHeadSpec, context: BuildContext, embedding: Embedding) -> None:
        super().__init__()
        self.scale = spec.scale
        self.softcap = (
            None
            if spec.softcap is None
            else Softcap(spec.softcap, spec.softcap_divisor, spec.softcap_form, spec.softcap_shift)
        )
        self.loss_weights = {"z_loss": spec.z_loss, "label_smoothing": spec.label_smoothing}
        # In a tuple, since a module that is an attribute would become part of this one.
        self._lender = (embedding,) if spec.tied else ()
        self.project: nn.Module = nn.Identity()
        self.projection: nn.Linear | None = None
        if spec.linear is not None:
            self.register_parameter("weight", None)
            self.projection = spec.linear.build(context, d_in=context.d_model, d_out=context.vocab_size, bias=False)
        elif spec.tied:
            self.register_parameter("weight", None)
            d_embedding = embedding.table_VE.shape[1]
            if d_embedding != context.d_model:
                self.project = nn.Linear(context.d_model, d_embedding, bias=False)
        else:
            self.weight = nn.Parameter(torch.empty(context.vocab_size, context.d_model))
        self.bias = nn.Parameter(torch.zeros(context.vocab_size)) if spec.bias else None

    def initial(self) -> dict[str, Initial]:
        return {} if self.weight is None else {"weight": "weight"}

    @property
    def tied_weights(self) -> Mapping[str, str]:
        if not self._lender or self._lender[0].packed_table:
            return {}
        table = self._lender[0].table_VE
        return {"weight": next(name for name, owned in self._lender[0].named_parameters() if owned is table)}

    @property
    def matrices(self) -> tuple[str, ...]:
        return () if self.weight is None else ("weight",)

    @property
    def matrix_VE(self) -> Matrix:
        """The matrix in use: the head's own, that of its projection, or the embedding's."""
        if isinstance(self.projection, TransformedLinear):
            return self.projection.transformed_weight()
        if self.projection is not None:
            return self.projection.weight
        if self._lender:
            return self._lender[0].matrix_VE
        own: Matrix = self.weight
        return own

    @property
    def vocabulary_table(self) -> Tensor | None:
        if self._lender:
            return self._lender[0].table_VE
        own: Tensor | None = self.weight
        return own

    def vocabulary_parameters(self) -> Mapping[str, int]:
        own = {"weight": -2, "bias": -1}
        return {name: dim for name, dim in own.items() if getattr(self, name) is not None}

    def _inputs(self, x_BTE: Tensor) -> Tensor:
        """Return the input of the matrix product."""
        projected_BTE: Tensor = self.project(x_BTE)
        return self.projection.transformed_input(x_BTE) if isinstance(self.projection, TransformedLinear) else projected_BTE

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        part, inputs_BTE = self.vocabulary_part, self._inputs(x_BTE)
        logits_BTV = linear(inputs_BTE if part is None else part.enter(inputs_BTE), self.matrix_VE, self.bias)
        if self.scale != 1:
            logits_BTV = logits_BTV * self.scale
        if self.softcap is not None:
            logits_BTV = bound(logits_BTV, self.softcap)
        return logits_BTV if part is None else part.logits(logits_BTV)

    def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
        return linear_cross_entropy(
            self._inputs(x_BTE).flatten(0, -2),
            as_tensor(self.matrix_VE),
            targets_BT.flatten(),
            self.bias,
            scale=self.scale,
            softcap=self.softcap,
            z_loss=self.loss_weights["z_loss"] if self.training else 0.0,
            smoothing=self.loss_weights["label_smoothing"] if self.training else 0.0,
            ignored=IGNORED,
            part=self.vocabulary_part,
        )

    def extra_repr(self) -> str:
        if self._lender:
            return "tied"
        return f"{self.weight.shape[1]} → {self.weight.shape[0]}" if isinstance(self.weight, Tensor) else ""
