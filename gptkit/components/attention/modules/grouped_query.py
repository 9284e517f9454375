"""Runtime of `grouped-query` and `multi-head`.

Shapes: B batch, H query heads, K key/value heads, T tokens, D head size, E model width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.nn.attention.softmax import SoftmaxAttention
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial, consecutive
from gptkit.nn.tensor_parallel import Divided, Division

if TYPE_CHECKING:
    from gptkit.components.attention.grouped_query import HeadedSpec

__all__ = ["EachHead", "GroupedQueryAttention"]


class GroupedQueryAttention(SoftmaxAttention):
    """Runtime of `grouped-query` and `multi-head`. One packed projection computes queries, keys, values (and gates)."""

    def __init__(self, spec: HeadedSpec, context: BuildContext) -> None:
        heads = spec.head_shape()
        d_head, n_heads, n_kv_heads = heads.d_head, heads.n_heads, heads.n_kv_heads
        norms = None
        full = spec.qk_norm_width == "full"
        if spec.qk_norm is not None:
            norms = (_qk_norm(spec, context, n_heads), _qk_norm(spec, context, n_kv_heads))
        after = norms is not None and spec.qk_norm_order == "after"
        super().__init__(
            context,
            heads,
            scale=spec.scale or d_head**-0.5,
            d_value=spec.d_value,
            dropout=spec.dropout,
            window=spec.window,
            pattern=spec.mask_pattern(),
            softcap=spec.softcap,
            sinks=spec.sinks,
            norms_after=norms if after else None,
        )
        if norms is not None and not after:
            self.q_norm, self.k_norm = norms
        self.norms_heads = norms is not None and not after and not full
        self.norms_full = norms is not None and full
        self.clip = spec.clip_qkv
        self.clips_after = spec.clip_order == "after"
        self.value_scale = spec.value_scale
        self.changes_heads = self.norms_heads or self.norms_full or self.clip is not None or spec.value_scale != 1
        self.d_head = d_head
        self.split = [n_heads, n_kv_heads, n_kv_heads]
        if spec.output_gate:
            self.split.append(n_heads)
        self.gated = spec.output_gate
        self.qkv = context.linear(context.d_model, sum(self.widths), bias=spec.qkv_bias)
        """Rows: all query heads, then keys, then values, then gates; head by head."""
        self.head_gate = context.linear(context.d_model, n_heads, bias=False) if spec.head_gate else None
        self.gate_function: Callable[[Tensor], Tensor] = F.softplus if spec.head_gate == "softplus" else torch.sigmoid
        self.output = context.linear(n_heads * self.d_value, context.d_model, bias=spec.output_bias)

    @property
    def widths(self) -> list[int]:
        """Rows of queries, keys, values and gates in the packed projection."""
        features = (self.d_head, self.d_head, self.d_value, self.d_value)
        return [heads * width for heads, width in zip(self.split, features, strict=False)]

    def initial(self) -> dict[str, Initial]:
        starts: dict[str, Initial] = {"output.weight": "output"}
        if self.sinks is not None:
            starts["sinks"] = "zeros"
        return starts

    def projections(self) -> dict[str, dict[str, tuple[slice, ...]]]:
        return {
            "qkv.weight": consecutive(("query", "key", "value", "gate"), self.widths),
            "output.weight": {"output": (slice(None),)},
        }

    def divisions(self) -> Mapping[str, Division]:
        if self.biases or self.reads_content or self.changes_values or self.mixes_scores or self.mixes_weights:
            # A position's terms of each head, and what mixes heads, require all heads.
            return {}
        if self.norms_full or self.d_value != self.d_head:
            return {}
        n_heads, n_kv_heads = self.split[:2]
        sections = {"query heads": n_heads, "key heads": n_kv_heads, "value heads": n_kv_heads}
        if self.gated:
            sections["gates"] = n_heads
        result: dict[str, Division] = {
            "qkv.weight": Divided(-2, sections),
            "qkv.bias": Divided(-1, sections),
            "output.weight": Divided(-1, {"query heads": n_heads}),
            "output.bias": "added",
            "sinks": Divided(-1, {"query heads": n_heads}),
        }
        if self.head_gate is not None:
            result["head_gate.weight"] = Divided(-2, {"query heads": n_heads})
        for name, norm in self.named_children():
            if name not in ("q_norm", "k_norm"):
                continue
            each = isinstance(norm, EachHead)
            heads = {"query heads": n_heads} if name == "q_norm" else {"key heads": n_kv_heads}
            result |= {f"{name}.{own}": Divided(-2, heads) if each else "shared" for own, _ in norm.named_parameters()}
        return result

    def divide(self, count: int) -> None:
        self.split = [heads // count for heads in self.split]
        self.heads = HeadShape(self.split[0], self.split[1], self.d_head)
        for norm in self.children():
            if isinstance(norm, EachHead):
                norm.n_heads //= count

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        n_batch, n_tokens, _ = x_BTE.shape
        packed_BTX = self.qkv(x_BTE)
        if self.d_value != self.d_head:
            parts = packed_BTX.split_with_sizes(self.widths, dim=-1)
            heads = [torch.unflatten(part, -1, (n, -1)) for part, n in zip(parts, self.split, strict=True)]
            q_BHTD, k_BKTD, v_BKTD, *gate = self._changed(heads)
        elif self.changes_heads:
            packed_BTHD = packed_BTX.view(n_batch, n_tokens, -1, self.d_head)
            q_BHTD, k_BKTD, v_BKTD, *gate = self._changed(packed_BTHD.split_with_sizes(self.split, dim=2))
        else:
            packed_BTHD = packed_BTX.view(n_batch, n_tokens, -1, self.d_head)
            q_BHTD, k_BKTD, v_BKTD, *gate = packed_BTHD.transpose(1, 2).split_with_sizes(self.split, dim=1)
        out_BTHD = self.attend(q_BHTD, k_BKTD, v_BKTD, forward).transpose(1, 2)
        if self.gated:
            out_BTHD = out_BTHD * gate[0].transpose(1, 2).sigmoid()
        if self.head_gate is not None:
            out_BTHD = out_BTHD * self.gate_function(self.head_gate(x_BTE))[..., None]
        return self.output(out_BTHD.reshape(n_batch, n_tokens, -1))  # type: ignore[no-any-return]

    def _changed(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Queries, keys, values and gates, (B, heads, T, D), after norms, clipping and scaling; from (B, T, heads, D)."""
        q_BTHD, k_BTKD, v_BTKD, *gate = parts
        if self.clip is not None and not self.clips_after:
            q_BTHD, k_BTKD, v_BTKD = (t.clamp(-self.clip, self.clip) for t in (q_BTHD, k_BTKD, v_BTKD))
        if self.norms_full:
            q_BTHD = self.q_norm(q_BTHD.flatten(2)).view_as(q_BTHD)
            k_BTKD = self.k_norm(k_BTKD.flatten(2)).view_as(k_BTKD)
        elif self.norms_heads:
            q_BTHD, k_BTKD = self.q_norm(q_BTHD), self.k_norm(k_BTKD)
        if self.clip is not None and self.clips_after:
            q_BTHD, k_BTKD, v_BTKD = (t.clamp(-self.clip, self.clip) for t in (q_BTHD, k_BTKD, v_BTKD))
        if self.value_scale != 1:
            v_BTKD = v_BTKD * self.value_scale
        return [each.transpose(1, 2) for each in (q_BTHD, k_BTKD, v_BTKD, *gate)]


class EachHead(nn.Module):
    """Norm with separate weights for every head: (…, H, D) -> (…, H, D). One call per head.

    Each parameter of the norm is stacked over the heads: its shape begins with H.
    """

    def __init__(self, norm: nn.Module, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self._norm = (norm,)  # in a tuple, so that its parameters are not registered
        for name, parameter in norm.named_parameters():
            self.register_parameter(name, nn.Parameter(parameter.new_empty(n_heads, *parameter.shape)))

    def initial(self) -> dict[str, Initial]:
        declared: dict[str, Initial] = getattr(self._norm[0], "initial", dict)()
        return declared

    def forward(self, x_BTHD: Tensor) -> Tensor:
        norm, own = self._norm[0], self._parameters
        each = [{name: stack[head] for name, stack in own.items() if stack is not None} for head in range(self.n_heads)]
        heads = [functional_call(norm, each[head], (x_BTHD[..., head, :],)) for head in range(self.n_heads)]
        return torch.stack(heads, dim=-2)


def _qk_norm(spec: HeadedSpec, context: BuildContext, n_heads: int) -> nn.Module:
    assert spec.qk_norm is not None
    assert spec.d_head is not None
    if spec.qk_norm_width == "each-head":
        return EachHead(spec.qk_norm.build(context, dim=spec.d_head), n_heads)
    return spec.qk_norm.build(context, dim=spec.d_head * n_heads if spec.qk_norm_width == "full" else spec.d_head)
