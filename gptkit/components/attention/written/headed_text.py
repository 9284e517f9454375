"""The pieces of the template of `multi-head` and `grouped-query`, in their order."""

from __future__ import annotations

__all__ = [
    "END",
    "OWN",
    "OWN_END",
    "POSITION",
    "REUSED",
    "REUSED_END",
    "START",
]

START = '''
class $class_name(nn.Module):
    """$description

    y = W_o [softmax(q kᵀ · scale + mask) v of each head], with q, k, v = W_qkv x.
    #if gate
    What a head returns is multiplied by the sigmoid of a gate, more rows of the same projection.
    #end
    #if reuses
    Layers that reuse the keys and values of an earlier one have q = W_q x alone.
    #end
    """

    def __init__(self$parameters) -> None:
        super().__init__()
        #if $REUSES_KV
        #if value_gate
        self.sizes = [$N_HEADS * $D_HEAD, $N_HEADS * $D_VALUE]
        #end
        self.query = $packed_q
        #else
        #if kv_inputs
        #if value_gate
        self.sizes = [$N_HEADS * $D_HEAD, $N_HEADS * $D_VALUE]
        #end
        self.query = $packed_q
        self.key = $key_projection
        self.value = $value_projection
        #else
        #if d_value
        self.sizes = [$N_HEADS * $D_HEAD, $key_heads * $D_HEAD, $key_heads * $D_VALUE]
        #if gate
        self.sizes.append($N_HEADS * $D_VALUE)
        #end
        #end
        #if $TIES_KV
        self.qk = $packed_qk
        #else
        self.qkv = $packed_qkv
        #end
        #end
        #end
        #if indexed
        #if $SPARSE
        self.indexer = $indexer
        #end
        #end
        #if output_norm
        self.output_norm = $output_norm
        #end
        self.output = $projection
        #if head_gate
        self.head_gate = $head_gate
        #end
        #if kv_conv
        #if not $REUSES_KV
        #if dynamic_conv
        self.k_conv = $key_convolution
        self.v_conv = $value_convolution
        #else
        d_keys, d_values = $key_heads * $D_HEAD, $key_heads * $value_size
        self.k_conv = nn.Conv1d(d_keys, d_keys, $KV_CONV, groups=d_keys, bias=False)
        self.v_conv = nn.Conv1d(d_values, d_values, $KV_CONV, groups=d_values, bias=False)
        #end
        #end
        #end
        #if relative
        self.relative = $relative_logits
        #end
        #if norms
        self.q_norm = $q_norm
        #end
        #if own_norms
        #if not $REUSES_KV
        #if norms
        self.k_norm = $k_norm
        #end
        #if v_norm
        self.v_norm = $v_norm
        #end
        #end
        #end
        #if position
        self.position = $position
        #end
        #if gate_bias
        self.gate_bias = nn.Parameter(torch.zeros($N_HEADS))
        #end
        #if token_sinks
        self.token_sinks = $sink_projection  # logits of the query's token that take a share of attention
        #end
        #if sinks
        self.sinks = nn.Parameter(torch.zeros($N_HEADS))  # a logit that takes a share of attention
        #end

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]$addition) -> Tensor:
        """Mix the tokens at these positions with earlier ones, (B, T, E) to (B, T, E)."""
        #if relative
        #if relative_norm
        q_BTHR = self.relative.features(x_BTE).unflatten(-1, ($N_HEADS, -1))
        q_BHTR = self.relative.norm(q_BTHR).transpose(1, 2)
        #else
        q_BHTR = self.relative.features(x_BTE).unflatten(-1, ($N_HEADS, -1)).transpose(1, 2)
        #end
        #end
        #if $REUSES_KV
'''

REUSED = """
        #if value_gate
        q_BTX, gate_BTX = self.query(x_BTE).split(self.sizes, dim=-1)
        q_BTHD = q_BTX.unflatten(-1, (-1, $D_HEAD))
        gate_BTHD = gate_BTX.unflatten(-1, (-1, $D_VALUE))
        #else
        q_BTHD = self.query(x_BTE).unflatten(-1, (-1, $D_HEAD))
        #if gate
        q_BTHD, gate_BTHD = q_BTHD.chunk(2, dim=2)
        #end
        #end
        #if clip_first
        q_BTHD = q_BTHD.clamp(-$CLIP, $CLIP)
        #end
        #if norms_full
        q_BTHD = self.q_norm(q_BTHD.flatten(2)).view_as(q_BTHD)  # over all heads of a token
        #elif norms_before
        q_BTHD = self.q_norm(q_BTHD)
        #end
        #if clip_last
        q_BTHD = q_BTHD.clamp(-$CLIP, $CLIP)
        #end
        q_BHTD = q_BTHD.transpose(1, 2)
"""

REUSED_END = """
        #if norms_after
        q_BHTD = self.q_norm(q_BHTD)
        #end
        k_BHSD, v_BHSD = cache["keys"], cache["values"]  # those of the earlier layer
        #else
"""

OWN = """
        #if $TIES_KV
        qk_BTHD = $own_qk.unflatten(-1, (-1, $D_HEAD))
        #if gate
        q_BTHD, k_BTHD, gate_BTHD = qk_BTHD.split(($N_HEADS, $key_heads, $N_HEADS), dim=2)
        #else
        q_BTHD, k_BTHD = qk_BTHD.split(($N_HEADS, $key_heads), dim=2)
        #end
        v_BTHD = k_BTHD  # one projection for both
        #else
        #if kv_inputs
        #if value_gate
        q_BTX, gate_BTX = self.query(x_BTE).split(self.sizes, dim=-1)
        q_BTHD = q_BTX.unflatten(-1, (-1, $D_HEAD))
        gate_BTHD = gate_BTX.unflatten(-1, (-1, $D_VALUE))
        #else
        q_BTHD = self.query(x_BTE).unflatten(-1, (-1, $D_HEAD))
        #if gate
        q_BTHD, gate_BTHD = q_BTHD.chunk(2, dim=2)
        #end
        #end
        k_BTHD = self.key(key_BTE).unflatten(-1, (-1, $D_HEAD))
        v_BTHD = self.value(value_BTE).unflatten(-1, (-1, $value_size))
        #elif d_value
        $value_names = $own_qkv.split(self.sizes, dim=-1)
        q_BTHD, k_BTHD = (x.unflatten(-1, (-1, $D_HEAD)) for x in (q_BTX, k_BTX))
        v_BTHD = v_BTX.unflatten(-1, (-1, $D_VALUE))
        #if gate
        gate_BTHD = gate_BTX.unflatten(-1, (-1, $D_VALUE))
        #end
        #else
        qkv_BTHD = $own_qkv.unflatten(-1, (-1, $D_HEAD))
        #if grouped_gate
        heads = ($N_HEADS, $N_KV_HEADS, $N_KV_HEADS, $N_HEADS)
        q_BTHD, k_BTHD, v_BTHD, gate_BTHD = qkv_BTHD.split(heads, dim=2)
        #elif gate
        q_BTHD, k_BTHD, v_BTHD, gate_BTHD = qkv_BTHD.chunk(4, dim=2)
        #elif grouped
        q_BTHD, k_BTHD, v_BTHD = qkv_BTHD.split(($N_HEADS, $N_KV_HEADS, $N_KV_HEADS), dim=2)
        #else
        q_BTHD, k_BTHD, v_BTHD = qkv_BTHD.chunk(3, dim=2)
        #end
        #end
        #end
        #if kv_conv
        k_BTX, v_BTX = k_BTHD.flatten(2), v_BTHD.flatten(2)
        start_BTX = cache.get("key_inputs", k_BTX.new_zeros(len(x_BTE), $KV_CONV - 1, k_BTX.shape[2]))
        k_BTX, cache["key_inputs"] = $convolved_keys
        start_BTX = cache.get("value_inputs", v_BTX.new_zeros(len(x_BTE), $KV_CONV - 1, v_BTX.shape[2]))
        v_BTX, cache["value_inputs"] = $convolved_values
        #if scaled_conv
        k_BTX, v_BTX = (x / ($KV_CONV + 1) ** 0.5 for x in (k_BTX, v_BTX))
        #end
        k_BTHD, v_BTHD = k_BTX.view_as(k_BTHD), v_BTX.view_as(v_BTHD)
        #end
        #if clip_first
        q_BTHD, k_BTHD, v_BTHD = (x.clamp(-$CLIP, $CLIP) for x in (q_BTHD, k_BTHD, v_BTHD))
        #end
        #if norms_full
        q_BTHD = self.q_norm(q_BTHD.flatten(2)).view_as(q_BTHD)  # over all heads of a token
        k_BTHD = self.k_norm(k_BTHD.flatten(2)).view_as(k_BTHD)
        #elif norms_before
        q_BTHD, k_BTHD = self.q_norm(q_BTHD), self.k_norm(k_BTHD)
        #end
        #if v_norm
        v_BTHD = self.v_norm(v_BTHD)
        #end
        #if clip_last
        q_BTHD, k_BTHD, v_BTHD = (x.clamp(-$CLIP, $CLIP) for x in (q_BTHD, k_BTHD, v_BTHD))
        #end
        q_BHTD, k_BHTD, v_BHTD = (x.transpose(1, 2) for x in (q_BTHD, k_BTHD, v_BTHD))
        #if value_scale
        v_BHTD = v_BHTD * $VALUE_SCALE
        #end
"""

OWN_END = """
        #if norms_after
        q_BHTD, k_BHTD = self.q_norm(q_BHTD), self.k_norm(k_BHTD)
        #end
        k_BHSD, v_BHSD = append_to(cache, "keys", k_BHTD), append_to(cache, "values", v_BHTD)
        #end
        mask_TS = $mask
        #if indexed
        #if $SPARSE
        chosen_BHTS = self.indexer(x_BTE, positions_T, cache, mask_TS)
        mask_BHTS = chosen_BHTS.repeat_interleave($N_HEADS // $INDEX_HEADS, dim=1)
        #else
        mask_BHTS = mask_TS[None, None]
        #end
        #end
"""

POSITION = """
        #if both
        q_BHTD, k_BHTD = $both
        #end
        #if query
        q_BHTD = $query
        #end
        #if key
        k_BHTD = $key
        #end
        #if unrotated
        q_BHTR = $unrotated
        #end
"""

END = """
        return self.output($outputs)
"""
