"""Attention through transformers' attention functions, which vLLM's Transformers backend and fused kernels replace.

Packed projections are separate here, so that tensor parallelism can divide each by its rows.
"""

from __future__ import annotations

import dataclasses
import re

from gptkit.kinds.written import Written

__all__ = ["PACKED_ATTENTION", "through_interface", "with_separate_gate"]

PACKED_ATTENTION = ("q", "k", "v", "gate")
"""Names of the projections that `qkv` packs, in the order of its rows."""

_PACKED = re.compile(r" *self\.qkv = nn\.Linear\(D_MODEL, (.+) \* \$D_HEAD(, bias=False)?\)\n")
_APPLIED = re.compile(r" *qkv_BTHD = self\.qkv\(x_BTE\)\.unflatten\(-1, \(-1, \$D_HEAD\)\)\n( *heads = .+\n)?")
_SPLIT = re.compile(r" *(q_BTHD, k_BTHD, v_BTHD(?:, gate_BTHD)?) = qkv_BTHD\.(?:split|chunk)\(.+\)\n")
_MASK = re.compile(r" *mask_TS = \$?causal_mask\(positions_T, k_BHSD\.shape\[2\](?:, window=(\$WINDOW))?\)\n")
_FUSED = re.compile(r" *y_BHTD = F\.scaled_dot_product_attention\(q_BHTD, k_BHSD, v_BHSD, mask_TS(.*)\)\n")
_HEAD_GATE = re.compile(r" *y_BHTD = y_BHTD \* (.+\(self\.head_gate\(x_BTE\)\))\.mT\[\.\.\., None\].*\n")
_OUTPUT = re.compile(r" *return self\.output\((.+)\)\n")
_OUTPUTS = {
    "y_BHTD.transpose(1, 2).flatten(2)": "y_BTX",
    **{
        f"(y_BHTD.transpose(1, 2) * {gate}.sigmoid()).flatten(2)": f"y_BTX * {gate}.flatten(2).sigmoid()"
        for gate in ("gate_BTHD", "(gate_BTHD + self.gate_bias[:, None])")
    },
}
_OUTPUTS |= {f"self.output_norm({old})": f"self.output_norm({new})" for old, new in _OUTPUTS.items()}
_OPTIONS = {
    r"dropout_p=(\$ATTENTION_DROPOUT if self\.training else 0\.0)": "dropout",
    r"scale=([^,]+)": "scale",
    r"(enable_gqa=True)": "grouped",
}

_GATE_UP = re.compile(r" *self\.gate_up = nn\.Linear\((D_MODEL|\$\w+), 2 \* \$D_HIDDEN(, bias=False)?\)  # .+\n")
_GATED = re.compile(r"gate_BTF, up_BTF = self\.gate_up\(x_BTE\)\.chunk\(2, dim=-1\)")


def through_interface(written: Written) -> Written | None:
    """Return an attention that calls the attention function of the configuration; None if its template has another form.

    That is so for attentions whose scores have terms of their own, or whose projections are not plain.
    """
    text = written.text
    matches = [pattern.search(text) for pattern in (_PACKED, _APPLIED, _SPLIT, _MASK, _FUSED, _OUTPUT)]
    if any(match is None for match in matches):
        return None
    packed, _, split, mask, fused, output = (match for match in matches if match is not None)
    options, left = {}, fused[1]
    for pattern, name in _OPTIONS.items():
        if option := re.search(rf", {pattern}", left):
            options[name], left = option[1], left.replace(option[0], "")
    if left or output[1] not in _OUTPUTS:
        return None
    gate = "gate" in split[1]
    names = PACKED_ATTENTION if gate else PACKED_ATTENTION[:3]
    grouped = "N_KV_HEADS" in written.settings
    bias = packed[2] or ""
    heads = {name: "$N_KV_HEADS" if grouped and name in "kv" else "$N_HEADS" for name in names}
    window = "$WINDOW" if mask[1] else "None"
    head_gate = _HEAD_GATE.search(text)
    flattened = "        y_BTX = y_BTHD.reshape(*x_BTE.shape[:-1], -1)\n"
    replaced = {
        packed[0]: "".join(f"        self.{name} = nn.Linear(D_MODEL, {heads[name]} * $D_HEAD{bias})\n" for name in names)
        + f"        self.scaling = {options.get('scale') or '$D_HEAD**-0.5'}\n"
        + f"        self.num_key_value_groups = {'$N_HEADS // $N_KV_HEADS' if grouped else '1'}\n"
        + "        self.is_causal = True\n",
        matches[1][0]: "",  # type: ignore[index]
        split[0]: f"        {split[1]} = (\n"
        f"            project(x_BTE).unflatten(-1, (-1, $D_HEAD))\n"
        f"            for project in ({', '.join(f'self.{name}' for name in names)})\n"
        "        )\n",
        mask[0]: "",
        fused[0]: "        attention = ALL_ATTENTION_FUNCTIONS.get_interface(\n"
        "            self.config._attn_implementation, eager_attention\n"
        "        )\n"
        "        y_BTHD, _ = attention(\n"
        "            self,\n"
        "            q_BHTD,\n"
        "            k_BHSD,\n"
        "            v_BHSD,\n"
        f"            cache.masks[{window}],\n"
        "            scaling=self.scaling,\n"
        f"            dropout={options.get('dropout', '0.0')},\n"
        f"            sliding_window={window},\n"
        "            **cache.options,\n"
        "        )\n" + ("" if head_gate else flattened),
        output[0]: f"        return self.output({_OUTPUTS[output[1]]})\n",
    }
    if head_gate is not None:
        # The attention function may return the heads of a token as one vector.
        replaced[head_gate[0]] = (
            "        y_BTHD = y_BTHD.reshape(*x_BTE.shape[:-1], -1, $D_HEAD)\n"
            f"        y_BTX = (y_BTHD * {head_gate[1]}[..., None]).flatten(2)\n"
        )
    for old, new in replaced.items():
        text = text.replace(old, new)
    parts = {name: part for name, part in written.parts.items() if part.name != "causal_mask"}
    return dataclasses.replace(written, text=text, parts=parts)


def with_separate_gate(written: Written) -> Written:
    """Return a gated feed-forward with a projection of its own for the gate; other parts as they are."""
    text, packed = written.text, _GATE_UP.search(written.text)
    if packed is None:
        return written
    width, bias = packed.groups(default="")
    lines = "".join(f"        self.{name} = nn.Linear({width}, $D_HIDDEN{bias})\n" for name in ("gate", "up"))
    text = _GATED.sub("gate_BTF, up_BTF = self.gate(x_BTE), self.up(x_BTE)", text.replace(packed[0], lines))
    return dataclasses.replace(written, text=text)
