"""Random combinations of the options of multi-head and grouped-query attention, against sums written token by token."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.model.gpt import GPT
from gptkit.nn.forward import Forward

V, E, H, D, T = 19, 12, 4, 6, 9
EPS = 1e-3
RMS = {"name": "rms", "eps": EPS}
LAYER = {"name": "layer", "eps": EPS}
PLAIN = {"name": "rms", "eps": EPS, "scale": False}
OPTIONS: dict[str, list[Any]] = {
    "n_kv_heads": [1, 2, 4],
    "d_value": [5],
    "value_scale": [0.7],
    "qkv_bias": [True],
    "output_bias": [True],
    "window": [3],
    "chunk": [4],
    "scale": [0.9],
    "qk_norm": [RMS, LAYER],
    "k_norm": [PLAIN, LAYER],
    "qk_norm_width": ["each-head", "full"],
    "qk_norm_order": ["after"],
    "v_norm": [RMS, LAYER, PLAIN],
    "tie_kv": [True],
    "softcap": [1.5],
    "sinks": [True],
    "token_sinks": [True],
    "clip_qkv": [0.8],
    "clip_order": ["after"],
    "output_gate": [True],
    "gate_bias": [True],
    "head_gate": ["sigmoid", "softplus"],
    "kv_conv": [1, 3],
    "kv_conv_form": ["scaled", "dynamic"],
    "relative_width": [2],
    "relative_extent": [4],
    "relative_norm": [RMS, LAYER],
    "output_norm": [RMS, LAYER],
}
REQUIRES = {
    "k_norm": "qk_norm",
    "qk_norm_width": "qk_norm",
    "qk_norm_order": "qk_norm",
    "clip_order": "clip_qkv",
    "gate_bias": "output_gate",
    "kv_conv_form": "kv_conv",
    "relative_extent": "relative_width",
    "relative_norm": "relative_width",
}
POSITIONS: list[dict[str, Any]] = [
    {"name": "none"},
    {"name": "rotary", "base": 50.0},
    {"name": "rotary", "base": 50.0, "layout": "interleaved"},
    {"name": "alibi"},
    {"name": "shaw", "max_distance": 3},
    {"name": "t5-bias", "n_buckets": 4, "max_distance": 6},
]


def combination(seed: int) -> dict[str, Any]:
    """Return a valid spec of a model with random options of its attention, each with a probability of 2 in 5."""
    draw = random.Random(seed)
    chosen = {name: draw.choice(values) for name, values in OPTIONS.items() if draw.random() < 0.4}
    position = draw.choice(POSITIONS)
    for name, required in REQUIRES.items():
        if name in chosen and required not in chosen:
            del chosen[name]
    if chosen.get("qk_norm_width"):
        chosen.pop("qk_norm_order", None)
    if "tie_kv" in chosen or position["name"] == "shaw":
        chosen.pop("d_value", None)
    name = draw.choice(["multi-head", "grouped-query"])
    if name == "multi-head":
        chosen.pop("n_kv_heads", None)
    attention = {"name": name, "n_heads": H, "d_head": D, **chosen}
    return {"d_model": E, "n_layers": 1, "context_length": 32, "position": position, "attention": attention}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(spec: dict[str, Any]) -> GPT:
    model = GPT(spec, V, seed=0).double().eval()
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.copy_(drawn(*parameter.shape, seed=seed) * 0.5)
    return model


def parameters(model: GPT) -> dict[str, Tensor]:
    """The parameters of the attention and of its position, by their names in the attention."""
    prefixes = {"blocks.0.attention.": "", "shared.t5-bias.": "position."}
    return {
        short + name.removeprefix(prefix): parameter
        for name, parameter in model.named_parameters()
        for prefix, short in prefixes.items()
        if name.startswith(prefix)
    }


class Written:
    """The attention of one text, from the names and shapes of the parameters of its module."""

    def __init__(self, spec: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.a, self.p, self.position = spec["attention"], tensors, spec["position"]
        self.K = H if self.a["name"] == "multi-head" else self.a.get("n_kv_heads", 1)
        self.Dv = self.a.get("d_value", D)

    def linear(self, name: str, x: Tensor) -> Tensor:
        y = x @ self.p[f"{name}.weight"].T
        return y + self.p[f"{name}.bias"] if f"{name}.bias" in self.p else y

    def normed(self, name: str, spec: dict[str, Any], x: Tensor, index: int | None = None) -> Tensor:
        """The norm of one vector; `index` selects the weights of a head."""
        if spec["name"] == "layer":
            x = (x - x.mean()) / (((x - x.mean()) ** 2).mean() + spec["eps"]) ** 0.5
        else:
            x = x / ((x**2).mean() + spec["eps"]) ** 0.5
        for part in ("weight", "bias"):
            value = self.p.get(f"{name}.{part}")
            if value is not None:
                value = value if index is None else value[index]
                x = x * value if part == "weight" else x + value
        return x

    def convolved(self, name: str, x_TE: Tensor, y_TKD: Tensor) -> Tensor:
        width, form = self.a["kv_conv"], self.a.get("kv_conv_form", "plain")
        weight, result = self.p[f"{name}.weight"], torch.zeros_like(y_TKD)
        for t in range(len(y_TKD)):
            for head in range(self.K):
                n = y_TKD.shape[-1]
                total = y_TKD[t, head]
                for i in range(min(width, t + 1)):
                    if form == "dynamic":
                        w = weight[i, head * n : (head + 1) * n]
                        w = w + self.linear(f"{name}.dynamic", x_TE[t]).view(width, self.K)[i, head]
                        total = total + w * y_TKD[t - i, head]
                    else:
                        w = weight[head * n : (head + 1) * n, 0, width - 1 - i]
                        total = total + w * y_TKD[t - i, head]
                divisor = {"plain": 1, "scaled": width + 1, "dynamic": 2 * width + 1}[form]
                result[t, head] = total / divisor**0.5
        return result

    def rotated(self, x: Tensor, t: int) -> Tensor:
        if self.position["name"] != "rotary":
            return x
        half, result = D // 2, x.clone()
        for i in range(half):
            a, b = (i, i + half) if self.position.get("layout") != "interleaved" else (2 * i, 2 * i + 1)
            angle = t * self.position["base"] ** (-2 * i / D)
            result[a] = x[a] * math.cos(angle) - x[b] * math.sin(angle)
            result[b] = x[a] * math.sin(angle) + x[b] * math.cos(angle)
        return result

    def clipped(self, x: Tensor, order: str) -> Tensor:
        limit = self.a.get("clip_qkv")
        return x if limit is None or self.a.get("clip_order", "before") != order else x.clamp(-limit, limit)

    def queries_keys_values(self, x_TE: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        a, n = self.a, len(x_TE)
        sizes = [H * D, self.K * D, self.K * self.Dv, H * self.Dv]
        if a.get("tie_kv"):
            sizes.pop(2)
        if not a.get("output_gate"):
            sizes.pop()
        parts = list(self.linear("qk" if a.get("tie_kv") else "qkv", x_TE).split(sizes, -1))
        gate = parts.pop().view(n, H, self.Dv) if a.get("output_gate") else None
        q, k = parts[0].view(n, H, D), parts[1].view(n, self.K, D)
        v = k if a.get("tie_kv") else parts[2].view(n, self.K, self.Dv)
        if "kv_conv" in a:
            k, v = self.convolved("k_conv", x_TE, k), self.convolved("v_conv", x_TE, v)
        q, k, v = (self.clipped(part, "before") for part in (q, k, v))
        q, k = self.normed_queries_keys(q, k, "before")
        q, k = (self.clipped(part, "after") for part in (q, k))
        q, k = (torch.stack([torch.stack([self.rotated(h, t) for h in row]) for t, row in enumerate(y)]) for y in (q, k))
        q, k = self.normed_queries_keys(q, k, "after")
        if "v_norm" in a:
            v = torch.stack([torch.stack([self.normed("v_norm", a["v_norm"], h) for h in row]) for row in v])
        v = self.clipped(v, "after")
        return q, k, v * a.get("value_scale", 1.0), gate

    def normed_queries_keys(self, q: Tensor, k: Tensor, order: str) -> tuple[Tensor, Tensor]:
        a = self.a
        if "qk_norm" not in a or a.get("qk_norm_order", "before") != order:
            return q, k
        width, result = a.get("qk_norm_width", "head"), []
        for name, y, spec in (("q_norm", q, a["qk_norm"]), ("k_norm", k, a.get("k_norm", a["qk_norm"]))):
            rows = []
            for row in y:
                if width == "full":
                    rows.append(self.normed(name, spec, row.flatten()).view_as(row))
                else:
                    index = range(len(row)) if width == "each-head" else [None] * len(row)
                    rows.append(torch.stack([self.normed(name, spec, h, i) for h, i in zip(row, index, strict=True)]))
            result.append(torch.stack(rows))
        return result[0], result[1]

    def bias(self, head: int, distance: int) -> Tensor | float:
        if self.position["name"] == "alibi":  # 2 ** (-8 (h + 1) / H), H a power of two
            return -(2.0 ** (-8 * (head + 1) / H)) * distance
        if self.position["name"] == "t5-bias":
            # half of the buckets for single distances, the others on a logarithmic scale
            single, n, far = 2, 4, 6
            bucket = distance
            if distance >= single:
                bucket = min(n - 1, single + int(math.log(distance / single) / math.log(far / single) * (n - single)))
            return self.p["position.table.weight"][bucket, head]
        return 0.0

    def __call__(self, x_TE: Tensor) -> Tensor:
        a = self.a
        q, k, v, gate = self.queries_keys_values(x_TE)
        shaw = self.position["name"] == "shaw"
        scale = a.get("scale", 1 / math.sqrt(D))
        rows = []
        for t in range(len(x_TE)):
            seen = [
                s for s in range(t + 1) if t - s < a.get("window", T) and s // a.get("chunk", T) == t // a.get("chunk", T)
            ]
            heads = []
            for h in range(H):
                g = h // (H // self.K)
                scores = []
                for s in seen:
                    score = scale * (q[t, h] @ k[s, g])
                    if shaw:
                        score = score + scale * (q[t, h] @ self.p["position.keys.weight"][min(t - s, 3)])
                    if "softcap" in a:
                        score = a["softcap"] * torch.tanh(score / a["softcap"])
                    if "relative_width" in a and t - s < a.get("relative_extent", a.get("window", 1024)):
                        r = self.linear("relative.features", x_TE[t]).view(H, 2)[h]
                        if "relative_norm" in a:
                            r = self.normed("relative.norm", a["relative_norm"], r, h)
                        score = score + r @ self.p["relative.table"][:, t - s]
                    scores.append(score + self.bias(h, t - s))
                sink = self.p["sinks"][h] if a.get("sinks") else torch.zeros((), dtype=x_TE.dtype)
                if a.get("token_sinks"):
                    sink = sink + self.linear("token_sinks", x_TE[t])[h]
                exps = [score.exp() for score in scores]
                total = sum(exps) + (sink.exp() if a.get("sinks") or a.get("token_sinks") else 0)
                out = torch.zeros(self.Dv, dtype=x_TE.dtype)
                for s, weight in zip(seen, exps, strict=True):
                    value = v[s, g] + (self.p["position.values.weight"][min(t - s, 3)] if shaw else 0)
                    out = out + weight / total * value
                if gate is not None:
                    out = out * torch.sigmoid(gate[t, h] + (self.p["gate_bias"][h] if a.get("gate_bias") else 0))
                if "head_gate" in a:
                    number = self.linear("head_gate", x_TE[t])[h]
                    out = out * (torch.sigmoid(number) if a["head_gate"] == "sigmoid" else torch.log1p(number.exp()))
                heads.append(out)
            row = torch.cat(heads)
            if "output_norm" in a:
                row = self.normed("output_norm", a["output_norm"], row)
            rows.append(self.linear("output", row))
        return torch.stack(rows)


@pytest.mark.parametrize("seed", range(40))
def test_combined_options_equal_the_formulas(seed: int) -> None:
    """Plain, behind padding, in documents; and the gradients of all parameters."""
    spec = combination(seed)
    model = make(spec)
    module, own = model.attentions()[0], parameters(model)
    tensors = {name: value.detach().clone().requires_grad_() for name, value in own.items()}
    written = Written(spec, tensors)
    # The tables of rotations are in fp32.
    limit = 1e-5 if spec["position"]["name"] == "rotary" else 1e-10
    x, ids = drawn(2, T, E, seed=7), torch.zeros(2, T, dtype=torch.long)
    out = module(x, Forward(ids))
    expected = torch.stack([written(row) for row in x])
    torch.testing.assert_close(out, expected, rtol=limit, atol=limit)
    cotangent = drawn(2, T, E, seed=8)
    names = list(tensors)
    got = torch.autograd.grad((out * cotangent).sum(), list(own.values()))
    wanted = torch.autograd.grad((expected * cotangent).sum(), list(tensors.values()))
    for name, mine, other in zip(names, got, wanted, strict=True):
        torch.testing.assert_close(
            mine, other, rtol=limit * 10, atol=limit * 10, msg=lambda text, name=name: f"{name}: {text}"
        )
    with torch.no_grad():
        padded = module(x, Forward(ids, left_padding_B=torch.tensor([0, 4])))
        torch.testing.assert_close(padded[0], expected[0], rtol=limit, atol=limit)
        torch.testing.assert_close(padded[1, 4:], written(x[1, 4:]), rtol=limit, atol=limit)
        documents = module(x, Forward(ids, documents_BT=torch.tensor([[0] * 5 + [1] * 4, [3] * T])))
        torch.testing.assert_close(documents[0, 5:], written(x[0, 5:]), rtol=limit, atol=limit)
        torch.testing.assert_close(documents[0, :5], expected[0, :5], rtol=limit, atol=limit)


@pytest.mark.parametrize("seed", range(100, 125))
@torch.no_grad()
def test_steps_with_a_cache_equal_one_call(seed: int) -> None:
    model = make(combination(seed))
    ids = torch.randint(V, (2, 14), generator=torch.Generator().manual_seed(seed))
    full = model(ids).logits
    for static in (False, True):
        cache = model.new_cache(2, static=static)
        pieces = [model(piece, cache=cache).logits for piece in ids.split([5, *[1] * 9], dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), full, rtol=1e-9, atol=1e-9)
