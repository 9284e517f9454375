"""Runtime of `sparse-latent`.

Shapes: B batch, H heads, T tokens of this call, S keys in view, E model width, C width of the queries' latent, J heads of
the indexer, I features of its queries and keys, R rotated features, D features of the attention's queries and keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gptkit.components.attention.modules.latent import LatentAttention, Selection
from gptkit.core.errors import GptkitError
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.nn.cache.view import KeyOffset
from gptkit.nn.forward import Forward
from gptkit.nn.position import build_position
from gptkit.nn.tensor_parallel import Division
from gptkit.ops.symbols import varies

if TYPE_CHECKING:
    from gptkit.components.attention.sparse_latent import SparseLatentSpec

__all__ = ["Indexer", "SparseLatentAttention"]


class Indexer(nn.Module):
    """Scores of all keys for each query, from projections of their own."""

    def __init__(self, spec: SparseLatentSpec, context: BuildContext) -> None:
        super().__init__()
        self.n_heads, self.d_index, self.d_rotary = spec.index_heads, spec.d_index, spec.d_rotary
        self.query = context.linear(spec.q_rank or context.d_model, spec.index_heads * spec.d_index, bias=False)
        self.key = context.linear(context.d_model, spec.d_index, bias=False)
        self.key_norm = nn.LayerNorm(spec.d_index, eps=spec.index_eps)
        self.weights = nn.Linear(context.d_model, spec.index_heads, bias=False)
        parts = context.parts
        position: Any = parts.position
        self.rotates = "rotate" in position.uses
        self.d_cached = spec.d_index - spec.d_rotary + position.rotated_width(spec.d_rotary)
        if spec.index_layout != "same" and self.rotates:
            context = context.replace(layer=replace(parts, position=position.replace(layout=spec.index_layout)))
        self.position = build_position(context, HeadShape(spec.index_heads, 1, spec.d_rotary))
        self.position_key = f"position {id(self.position)}"

    def _turned(self, q_BJTI: Tensor, k_B1TI: Tensor, forward: Forward) -> tuple[Tensor, Tensor]:
        """Return queries and keys whose first features are rotated by their positions."""
        if not self.rotates:
            return q_BJTI, k_B1TI
        position, sizes = self.position, [self.d_rotary, self.d_index - self.d_rotary]
        prepared = forward.once((self.position_key, "prepared"), lambda: position.prepare(forward.positions))
        (q, q_rest), (k, k_rest) = torch.split(q_BJTI, sizes, dim=-1), torch.split(k_B1TI, sizes, dim=-1)
        q, k = position.rotate(q, k, prepared)
        return torch.cat((q, q_rest), dim=-1), torch.cat((k, k_rest), dim=-1)

    def keys(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        """Return this call's keys, (B, 1, T, I)."""
        k_B1TI = self.key_norm(self.key(x_BTE))[:, None]
        return self._turned(k_B1TI, k_B1TI, forward)[1]

    def forward(self, x_BTE: Tensor, c_BTC: Tensor, k_B1SI: Tensor, forward: Forward) -> Tensor:
        """Return the scores, (B, T, S), in fp32 or wider."""
        q_BJTI = self.query(c_BTC).unflatten(-1, (self.n_heads, self.d_index)).transpose(1, 2)
        wide = torch.promote_types(x_BTE.dtype, torch.float32)
        q_BJTI = self._turned(q_BJTI, q_BJTI[:, :1], forward)[0].to(wide)
        scores_BJTS = (q_BJTI @ k_B1SI.to(wide).transpose(-1, -2) * self.d_index**-0.5).relu()
        weights_BJT1 = self.weights(x_BTE).to(wide).transpose(1, 2)[..., None] * self.n_heads**-0.5
        scores_BTS: Tensor = (scores_BJTS * weights_BJT1).sum(dim=1)
        return scores_BTS


class SparseLatentAttention(LatentAttention):
    """Runtime of `sparse-latent`. Keys that are not chosen get a term that makes their weights zero."""

    def __init__(self, spec: SparseLatentSpec, context: BuildContext) -> None:
        super().__init__(spec, context, added_term=True)
        self.top_k, self.n_layers = spec.top_k, context.n_layers
        self.loss_weights = {"indexer": spec.index_loss} if spec.indexer == "own" else {}
        owners: list[int] = context.share(("sparse-latent",), list)
        if spec.indexer == "own":
            owners.append(len(owners))  # not the layer: the modules of head multi-token have the same one
        elif not owners:
            raise GptkitError(
                f"layer {self.layer} uses the indexer of a previous layer, and none has one",
                hint="Set `indexer: own` there.",
            )
        self.key = ("sparse-latent", owners[-1])
        self.publishes = (self.key,) if spec.indexer == "own" else ()
        self.reads = () if spec.indexer == "own" else (self.key,)
        self.indexer = Indexer(spec, context) if spec.indexer == "own" else None

    def divisions(self) -> Mapping[str, Division]:
        return {}  # the loss needs the weights of all heads

    @property
    def cached_shapes(self) -> tuple[tuple[int, int], ...]:
        return (*super().cached_shapes, *(() if self.indexer is None else ((1, self.indexer.d_cached),)))

    def more_keys(self, x_BTE: Tensor, forward: Forward) -> tuple[Tensor, ...]:
        return () if self.indexer is None else (self.indexer.keys(x_BTE.detach(), forward),)

    def select(
        self, x_BTE: Tensor, c_BTC: Tensor, more: tuple[Tensor, ...], n_keys: int, forward: Forward, offset: KeyOffset
    ) -> Selection | None:
        if self.indexer is None:
            (selection,) = forward.read(self, self.key)
            return selection  # type: ignore[no-any-return]
        scores_BTS = self.indexer(x_BTE.detach(), c_BTC.detach(), *more, forward)
        visible_B1TS = forward.mask(offset, n_keys, window=self.current_window, pattern=self.pattern).dense()
        lowest = torch.finfo(scores_BTS.dtype).min / 4
        scores_BTS = scores_BTS.masked_fill(~visible_B1TS[:, 0], lowest)
        # A stable order: of equal scores, which are often 0, the first keys are chosen, in every split of a text into calls.
        # A number of keys that varies (an ONNX model) is not compared, which would restrict it.
        n_chosen = torch.sym_min(n_keys, self.top_k) if varies(n_keys) else self.top_k  # type: ignore[no-untyped-call]
        order_BTS = scores_BTS.sort(dim=-1, descending=True, stable=True).indices[..., :n_chosen]
        chosen_BTS = torch.zeros_like(scores_BTS, dtype=torch.bool).scatter(-1, order_BTS, True)
        added = torch.zeros_like(chosen_BTS, dtype=x_BTE.dtype)
        added = added.masked_fill(~chosen_BTS, torch.finfo(x_BTE.dtype).min / 4)
        selection = Selection(added[:, None], scores_BTS.masked_fill(~chosen_BTS, lowest))
        forward.publish(self, self.key, (selection,))
        return selection

    def learn(self, selection: Selection, q_BHTD: Tensor, k_BHSD: Tensor, forward: Forward, offset: KeyOffset) -> None:
        weight = self.loss_weights.get("indexer", 0)
        if not self.training or not weight or not torch.is_grad_enabled():
            return
        with torch.no_grad():
            mask = forward.mask(offset, k_BHSD.shape[2], window=self.current_window, pattern=self.pattern)
            lowest = torch.finfo(torch.float32).min / 4
            term = self.additive_term(forward, mask, torch.float32).clamp(min=lowest) + selection.added
            scores = (q_BHTD @ k_BHSD.transpose(-1, -2)).float() * self.scale + term
            scores = scores.clamp(min=lowest)
            weights = scores.softmax(dim=-1)
            if self.sinks is not None:  # heads that attend to their sink count less
                weights = weights * (scores.logsumexp(-1, keepdim=True) - self.sinks.float()[:, None, None]).sigmoid()
                weights = weights / weights.sum(dim=(1, 3), keepdim=True).clamp(min=1e-20) * weights.shape[1]
            p_BTS = weights.mean(dim=1)
        log_q_BTS = selection.scores.log_softmax(dim=-1)
        divergence_BT = (torch.xlogy(p_BTS, p_BTS) - p_BTS * log_q_BTS).sum(dim=-1)
        forward.add_loss("indexer", forward.counted_mean(divergence_BT) * (weight / self.n_layers))
