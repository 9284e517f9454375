"""Runtime module of head `multi-token`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.state import Stateful
from gptkit.nn.cache.store import States
from gptkit.nn.embedding import Embedding
from gptkit.nn.forward import Forward
from gptkit.nn.head import IGNORED, WrappedHead
from gptkit.nn.predictions import Predictions

if TYPE_CHECKING:
    from gptkit.components.head.multi_token import MultiTokenHeadSpec

__all__ = ["MultiTokenHead", "PredictionModule"]


class MultiTokenHead(WrappedHead, Predictions):
    """Runtime part of `MultiTokenHeadSpec`."""

    def __init__(self, spec: MultiTokenHeadSpec, context: BuildContext, embedding: Embedding) -> None:
        super().__init__(spec.head.build(context, embedding=embedding))
        self.loss_weights = {"multi_token": spec.weight}
        self.modules_after = nn.ModuleList(PredictionModule(spec, context) for _ in range(spec.depth))
        # In a tuple, since a module that is an attribute would be registered a second time.
        self._embedding = (embedding,)
        # They are not among the model's stateful modules, since the model's logits do not depend on them.
        self._stateful = [module for module in self.modules_after.modules() if isinstance(module, Stateful)]
        for index, module in enumerate(self._stateful):
            module.state_index = index

    def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
        loss = super().loss(x_BTE, targets_BT, forward)
        if not self.training:
            return loss
        embedded_BTE = self._embedding[0](forward.ids_BT, forward)
        total = torch.zeros_like(loss)
        for number, module in enumerate(self.modules_after, 1):
            assert isinstance(module, PredictionModule)
            ahead = min(number, targets_BT.shape[1])  # a shorter text has no such targets
            x_BTE = module(x_BTE, _shifted(embedded_BTE, ahead), forward)
            targets = F.pad(targets_BT[:, ahead:], (0, ahead), value=IGNORED)
            documents = forward.documents_BT
            if documents is not None:
                same = F.pad(documents[:, ahead:] == documents[:, :-ahead], (0, ahead), value=False)
                targets = torch.where(same, targets, IGNORED)
            total = total + self.head.loss(module.output_norm(x_BTE), targets, forward)
        forward.add_loss("multi_token", total * (self.loss_weights["multi_token"] / len(self.modules_after)))
        return loss

    @property
    def predictions(self) -> Predictions:
        return self

    @property
    def depth(self) -> int:
        return len(self.modules_after)

    def new_prediction_states(self, allocation: Allocation) -> States:
        return States(self._stateful, allocation)

    def predict(self, k: int, x_BTE: Tensor, following: Forward, forward: Forward) -> Tensor:
        h_BTE: Tensor = self.modules_after[k - 1](x_BTE, self._embedding[0](following.ids_BT, following), forward)
        return h_BTE

    def predicted_logits(self, k: int, h_BTE: Tensor, forward: Forward) -> Tensor:
        module = self.modules_after[k - 1]
        assert isinstance(module, PredictionModule)
        logits_BTV: Tensor = self.head(module.output_norm(h_BTE), forward)
        return logits_BTV


class PredictionModule(nn.Module):
    """Module of one further token: combines the previous vectors with the next tokens' embeddings, and applies a block."""

    def __init__(self, spec: MultiTokenHeadSpec, context: BuildContext) -> None:
        super().__init__()
        width, norm = context.d_model, context.parts.norm
        self.hidden_norm = norm.build(context, dim=width)
        self.embedding_norm = norm.build(context, dim=width)
        self.join = context.linear(2 * width, width, bias=False)
        self.block = spec.block.build(context)
        self.output_norm: nn.Module = norm.build(context, dim=width)

    def forward(self, x_BTE: Tensor, next_BTE: Tensor, forward: Forward) -> Tensor:
        joined_BTE = self.join(torch.cat((self.hidden_norm(x_BTE), self.embedding_norm(next_BTE)), dim=-1))
        y_BTE: Tensor = self.block(joined_BTE, forward)
        return y_BTE


def _shifted(x_BTE: Tensor, by: int) -> Tensor:
    """Return the vectors shifted by a number of tokens, with zeros at the end, whose targets are ignored."""
    return F.pad(x_BTE[:, by:], (0, 0, 0, by))
