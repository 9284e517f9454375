"""Runtime of `grouped-query` and `multi-head`.

Shapes: B batch, H query heads, K key/value heads, T tokens, D head size, E model width.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.components.attention.modules.head_parts import each_head, kv_conv, parameters_of, qk_norm
from gptkit.components.attention.modules.relative_logits import RelativeLogits
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.nn.addition import TakesAddition
from gptkit.nn.attention.softmax import AddedTerm, SoftmaxAttention
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.state import LayerState
from gptkit.nn.cache.view import KeyOffset
from gptkit.nn.dynamic_convolution import DynamicConvolution
from gptkit.nn.each_head import EachHead
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial, consecutive
from gptkit.nn.short_convolution import ShortConvolution
from gptkit.nn.tensor_parallel import Divided, Division

if TYPE_CHECKING:
    from gptkit.components.attention.grouped_query import HeadedSpec

__all__ = ["GroupedQueryAttention"]

_SOURCES = ("keys and values",)
"""Key of `BuildContext.share` under which the layers that compute keys and values are, by the form of these."""
_PROJECTIONS = {"query heads": "query", "key heads": "key", "value heads": "value", "gates": "gate"}
"""Names of projections, by those of their heads."""


class GroupedQueryAttention(SoftmaxAttention, TakesAddition):
    """Runtime of `grouped-query` and `multi-head`. One packed projection computes queries, keys, values (and gates).

    It is `qkv`; `qk` where values are the projected keys, and `query` in a layer that attends to the keys and values of an
    earlier one. Where keys and values have inputs of their own, it is `query`, beside `key` and `value`.
    """

    def __init__(self, spec: HeadedSpec, context: BuildContext, *, added_term: bool = False) -> None:
        heads = spec.head_shape()
        d_head, n_heads, n_kv_heads = heads.d_head, heads.n_heads, heads.n_kv_heads
        source = _earlier(spec, context)
        norms: tuple[nn.Module, nn.Module] | None = None
        full = spec.qk_norm_width == "full"
        if spec.qk_norm is not None:
            k_spec = spec.k_norm or spec.qk_norm
            k_norm = qk_norm(k_spec, spec, context, n_kv_heads) if source is None else nn.Identity()
            norms = (qk_norm(spec.qk_norm, spec, context, n_heads), k_norm)
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
            sinks=spec.sinks or spec.token_sinks,
            learned_sinks=spec.sinks,
            norms_after=norms if after else None,
            added_term=added_term or spec.relative_width is not None or spec.token_sinks,
        )
        self.adds_to_scores = added_term
        if norms is not None and not after:
            self.q_norm, self.k_norm = norms
        self.source_key: Hashable | None = None if source is None else source.provide()
        self.reads = () if self.source_key is None else (self.source_key,)
        if source is None:
            # Layers are built in order; a later one attends to the last that has the same form.
            sources: dict[Hashable, GroupedQueryAttention] = context.share(_SOURCES, dict)
            sources[spec.kv_form(context.parts)] = self
        self.norms_heads = norms is not None and not after and not full
        self.norms_full = norms is not None and full
        self.v_norm = None if spec.v_norm is None or source is not None else spec.v_norm.build(context, dim=self.d_value)
        self.clip = spec.clip_qkv
        self.clips_after = spec.clip_order == "after"
        self.value_scale = spec.value_scale
        self.changes_heads = self.norms_heads or self.norms_full or self.clip is not None or spec.value_scale != 1
        self.changes_heads = self.changes_heads or self.v_norm is not None
        self.d_head = d_head
        self.ties = spec.tie_kv and source is None
        self.sections = {"query heads": n_heads}
        self.has_kv_inputs = context.kv_inputs and source is None
        if source is None and not self.has_kv_inputs:
            self.sections["key heads"] = n_kv_heads
            if not spec.tie_kv:
                self.sections["value heads"] = n_kv_heads
        if spec.output_gate:
            self.sections["gates"] = n_heads
        self.gated = spec.output_gate
        self.gate_bias = nn.Parameter(torch.empty(n_heads)) if spec.output_gate and spec.gate_bias else None
        self.split = list(self.sections.values())
        self.packed = "query" if source is not None or self.has_kv_inputs else "qk" if self.ties else "qkv"
        """Name of the packed projection. Rows: all query heads, then keys, then values, then gates; head by head."""
        self.add_module(self.packed, context.linear(context.d_model, sum(self.widths), bias=spec.qkv_bias))
        if self.has_kv_inputs:
            self.key, self.value = (
                context.linear(context.d_model, n_kv_heads * width, bias=spec.qkv_bias) for width in (d_head, self.d_value)
            )
        self.k_conv, self.v_conv = (kv_conv(spec, context, width, own=source is None) for width in (d_head, self.d_value))
        self.relative: RelativeLogits | None = None
        if spec.relative_width is not None:
            assert spec.relative_extent is not None
            norm = spec.relative_norm
            each = None if norm is None else each_head(norm.build(context, dim=spec.relative_width), n_heads)
            self.relative = RelativeLogits(context, n_heads, spec.relative_width, spec.relative_extent, each)
        self.token_sinks = context.linear(context.d_model, n_heads, bias=False) if spec.token_sinks else None
        self.head_gate = context.linear(context.d_model, n_heads, bias=False) if spec.head_gate else None
        self.gate_function: Callable[[Tensor], Tensor] = F.softplus if spec.head_gate == "softplus" else torch.sigmoid
        d_values = n_heads * self.d_value
        self.output_norm = None if spec.output_norm is None else spec.output_norm.build(context, dim=d_values)
        self.output = context.linear(d_values, context.d_output or context.d_model, bias=spec.output_bias)

    @property
    def widths(self) -> list[int]:
        """Rows of queries, keys, values and gates in the packed projection."""
        features = {"value heads": self.d_value, "gates": self.d_value}
        return [heads * features.get(name, self.d_head) for name, heads in self.sections.items()]

    def initial(self) -> dict[str, Initial]:
        starts: dict[str, Initial] = {"output.weight": "output"}
        if self.sinks is not None:
            starts["sinks"] = "zeros"
        if self.gate_bias is not None:
            starts["gate_bias"] = "zeros"
        return starts

    def projections(self) -> dict[str, dict[str, tuple[slice, ...]]]:
        alone = ("key", "value", "output") if self.has_kv_inputs else ("output",)
        return {
            f"{self.packed}.weight": consecutive([_PROJECTIONS[name] for name in self.sections], self.widths),
            **{f"{name}.weight": {name: (slice(None),)} for name in alone},
        }

    def divisions(self) -> Mapping[str, Division]:
        if self.biases or self.reads_content or self.changes_values or self.mixes_scores or self.mixes_weights:
            # A position's terms of each head, and what mixes heads, require all heads.
            return {}
        if self.norms_full or self.output_norm is not None or self.d_value != self.d_head:
            return {}
        if self.has_addition:
            # The addition has all heads.
            return {}
        if self.source_key is not None or self.provided_key is not None:
            # Layers that share keys and values would have to be divided alike.
            return {}
        n_heads, n_kv_heads = self.heads.n_heads, self.heads.n_kv_heads
        result: dict[str, Division] = {
            f"{self.packed}.weight": Divided(-2, self.sections),
            f"{self.packed}.bias": Divided(-1, self.sections),
            "output.weight": Divided(-1, {"query heads": n_heads}),
            "output.bias": "added",
            "sinks": Divided(-1, {"query heads": n_heads}),
            "gate_bias": Divided(-1, {"query heads": n_heads}),
        }
        if self.head_gate is not None:
            result["head_gate.weight"] = Divided(-2, {"query heads": n_heads})
        keys = {"key heads": n_kv_heads}
        if self.has_kv_inputs:
            result |= {f"{name}.weight": Divided(-2, keys) for name in ("key", "value")}
            result |= {f"{name}.bias": Divided(-1, keys) for name in ("key", "value")}
        for name, conv in (("k_conv", self.k_conv), ("v_conv", self.v_conv)):
            if isinstance(conv, ShortConvolution):
                result[f"{name}.weight"] = Divided(-3, keys)
            elif conv is not None:
                result |= {f"{name}.weight": Divided(-1, keys), f"{name}.dynamic.weight": Divided(-2, keys)}
        if self.token_sinks is not None:
            result["token_sinks.weight"] = Divided(-2, {"query heads": n_heads})
        if self.relative is not None:
            queries = {"query heads": n_heads}
            result |= {"relative.features.weight": Divided(-2, queries), "relative.table": "shared"}
            result |= {f"relative.norm.{own}": Divided(-2, queries) for own, _ in parameters_of(self.relative.norm)}
        for name, norm in self.named_children():
            if name not in ("q_norm", "k_norm", "v_norm"):
                continue
            each = isinstance(norm, EachHead)
            heads = {"query heads": n_heads} if name == "q_norm" else {"key heads": n_kv_heads}
            result |= {f"{name}.{own}": Divided(-2, heads) if each else "shared" for own, _ in norm.named_parameters()}
        return result

    def divide(self, count: int) -> None:
        self.sections = {name: heads // count for name, heads in self.sections.items()}
        self.split = list(self.sections.values())
        self.heads = HeadShape(self.heads.n_heads // count, self.heads.n_kv_heads // count, self.d_head)
        for norm in (*self.children(), None if self.relative is None else self.relative.norm):
            if isinstance(norm, EachHead):
                norm.n_heads //= count

    def new_state(self, allocation: Allocation) -> LayerState | None:
        return None if self.source_key is not None else super().new_state(allocation)

    def state_bytes_per_token(self, dtype: torch.dtype) -> float:
        return 0.0 if self.source_key is not None else super().state_bytes_per_token(dtype)

    @property
    def orders_keys(self) -> bool:
        # Relative terms depend on the distance of a key alone, wherever it is in view.
        return self.features.content_term or self.features.value_term or self.adds_to_scores

    @property
    def addition_widths(self) -> tuple[int, ...]:
        return tuple(self.widths)

    def forward(
        self,
        x_BTE: Tensor,
        forward: Forward,
        added_BTX: Tensor | None = None,
        kv_BTE: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        n_batch, n_tokens, _ = x_BTE.shape
        packed_BTX = getattr(self, self.packed)(x_BTE)
        if added_BTX is not None:
            packed_BTX = packed_BTX + added_BTX
        if self.d_value != self.d_head:
            widths = packed_BTX.split_with_sizes(self.widths, dim=-1)
            parts = [torch.unflatten(part, -1, (n, -1)) for part, n in zip(widths, self.split, strict=True)]
        else:
            packed_BTHD = packed_BTX.view(n_batch, n_tokens, -1, self.d_head)
            parts = list(packed_BTHD.split_with_sizes(self.split, dim=2))
        gate_BTHD = parts.pop() if self.gated else None
        if self.ties:
            parts.append(parts[1])
        inputs = (x_BTE, x_BTE) if kv_BTE is None else kv_BTE
        if self.has_kv_inputs:
            parts.append(torch.unflatten(self.key(inputs[0]), -1, (-1, self.d_head)))
            parts.append(torch.unflatten(self.value(inputs[1]), -1, (-1, self.d_value)))
        for index, conv in ((1, self.k_conv), (2, self.v_conv)):
            if conv is not None:
                given = (inputs[index - 1],) if isinstance(conv, DynamicConvolution) else ()
                parts[index] = conv(parts[index].flatten(2), *given, forward).view_as(parts[index])
        if self.changes_heads:
            parts = self._changed(*parts)
        q_BHTD, *kv_BKTD = (part.transpose(1, 2) for part in parts)
        if self.source_key is None:
            k_BKTD, v_BKTD = kv_BKTD
            out_BHTD = self.attend_own(x_BTE, q_BHTD, k_BKTD, v_BKTD, forward)
        else:
            out_BHTD = self.attend_to_provided(q_BHTD, self.source_key, forward, *self._own_terms(x_BTE, forward))
        out_BTHD = out_BHTD.transpose(1, 2)
        if gate_BTHD is not None and self.gate_bias is not None:
            gate_BTHD = gate_BTHD + self.gate_bias.to(gate_BTHD.dtype)[:, None]
        if gate_BTHD is not None:
            out_BTHD = out_BTHD * gate_BTHD.sigmoid()
        if self.head_gate is not None:
            out_BTHD = out_BTHD * self.gate_function(self.head_gate(x_BTE))[..., None]
        out_BTX = out_BTHD.reshape(n_batch, n_tokens, -1)
        if self.output_norm is not None:
            out_BTX = self.output_norm(out_BTX)
        return self.output(out_BTX)  # type: ignore[no-any-return]

    def attend_own(self, x_BTE: Tensor, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, forward: Forward) -> Tensor:
        """Return the heads' outputs (B, H, T, D) for this call's queries, keys and values, and the layer's input."""
        return self.attend(q_BHTD, k_BKTD, v_BKTD, forward, *self._own_terms(x_BTE, forward))

    def _own_terms(self, x_BTE: Tensor, forward: Forward) -> tuple[AddedTerm, ...]:
        """Return the terms that the queries' tokens add to the scores, as one; none without them."""
        relative, r_BHTR = self.relative, None
        sinks_BHT1: Tensor | None = None
        if self.token_sinks is not None:
            sinks_BHT1 = self.token_sinks(x_BTE).transpose(1, 2)[..., None]
        if relative is not None:
            r_BHTR = relative.queries(x_BTE)
            if self.rotates:
                r_BHTR = self.position.scale_unrotated(r_BHTR, self.prepared(forward))
        elif sinks_BHT1 is None:
            return ()

        def term(offset: KeyOffset, n_keys: int) -> Tensor:
            if relative is None or r_BHTR is None:
                assert sinks_BHT1 is not None
                return -sinks_BHT1
            terms: Tensor = relative(r_BHTR, forward.query_positions, forward.key_positions(offset, n_keys))
            # Scores minus the logit beside a sink of 0 have the weights of scores beside that logit.
            return terms if sinks_BHT1 is None else terms - sinks_BHT1

        return (term,)

    def _changed(self, *parts: Tensor) -> list[Tensor]:
        """Return queries, and own keys and values, each (B, T, heads, D), after norms, clipping and scaling."""
        if self.clip is not None and not self.clips_after:
            parts = tuple(part.clamp(-self.clip, self.clip) for part in parts)
        q_BTHD, *kv_BTKD = parts
        if self.norms_heads or self.norms_full:
            q_BTHD = self._normed(self.q_norm, q_BTHD)
            kv_BTKD = [self._normed(self.k_norm, kv_BTKD[0]), kv_BTKD[1]] if kv_BTKD else []
        if self.v_norm is not None:
            kv_BTKD = [kv_BTKD[0], self.v_norm(kv_BTKD[1])]
        if self.clip is not None and self.clips_after:
            q_BTHD, *kv_BTKD = (part.clamp(-self.clip, self.clip) for part in (q_BTHD, *kv_BTKD))
        if self.value_scale != 1 and kv_BTKD:
            kv_BTKD = [kv_BTKD[0], kv_BTKD[1] * self.value_scale]
        return [q_BTHD, *kv_BTKD]

    def _normed(self, norm: nn.Module, x_BTHD: Tensor) -> Tensor:
        normed: Tensor = norm(x_BTHD.flatten(2)).view_as(x_BTHD) if self.norms_full else norm(x_BTHD)
        return normed


def _earlier(spec: HeadedSpec, context: BuildContext) -> GroupedQueryAttention | None:
    """Return the layer whose keys and values a layer attends to; None where it computes its own."""
    if not spec.reuse_kv:
        return None
    sources: dict[Hashable, GroupedQueryAttention] = context.share(_SOURCES, dict)
    return sources.get(spec.kv_form(context.parts))
