"""Convolutions with weights of each token: formula, transformers' layer, documents and padding, trainings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.kinds.context import BuildContext
from gptkit.model.gpt import GPT
from gptkit.nn.dynamic_convolution import DynamicConvolution
from gptkit.nn.forward import Forward
from tests.support.learning import N_TOKENS, assert_learns, repeated

E, HEADS, D, WIDTH = 10, 3, 4, 3
C = HEADS * D


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def make() -> DynamicConvolution:
    conv = DynamicConvolution(BuildContext(E, 32, 1), HEADS, D, WIDTH).double()
    for seed, parameter in enumerate(conv.parameters()):
        parameter.copy_(draw(*parameter.shape, seed=seed))
    return conv


def convolved(conv: DynamicConvolution, x_TC: Tensor, input_TE: Tensor) -> Tensor:
    """The formula, token by token and head by head."""
    rows = []
    for t in range(len(x_TC)):
        dynamic = (conv.dynamic.weight @ input_TE[t]).view(HEADS, WIDTH)
        row = x_TC[t].clone()
        for i in range(min(WIDTH, t + 1)):
            for head in range(HEADS):
                part = slice(head * D, (head + 1) * D)
                row[part] += (conv.weight[i, part] + dynamic[head, i]) * x_TC[t - i, part]
        rows.append(row / (2 * WIDTH + 1) ** 0.5)
    return torch.stack(rows)


@torch.no_grad()
def test_equals_the_formula_with_padding_and_documents() -> None:
    conv, x, inputs = make(), draw(2, 9, C), draw(2, 9, E, seed=1)
    out = conv(x, inputs, Forward(torch.zeros(2, 9, dtype=torch.long), left_padding_B=torch.tensor([0, 3])))
    torch.testing.assert_close(out[0], convolved(conv, x[0], inputs[0]))
    torch.testing.assert_close(out[1, 3:], convolved(conv, x[1, 3:], inputs[1, 3:]))
    documents = torch.tensor([[0] * 5 + [1] * 4, [3] + [8] * 8])
    out = conv(x, inputs, Forward(torch.zeros(2, 9, dtype=torch.long), documents_BT=documents))
    for row, (begin, end) in ((0, (0, 5)), (0, (5, 9)), (1, (0, 1)), (1, (1, 9))):
        wanted = convolved(conv, x[row, begin:end], inputs[row, begin:end])
        torch.testing.assert_close(out[row, begin:end], wanted)


@torch.no_grad()
def test_equals_transformers() -> None:
    modeling = pytest.importorskip("transformers.models.inkling2.modeling_inkling2")
    own, x, inputs = make().float(), draw(2, 9, C).float(), draw(2, 9, E, seed=1).float()
    reference = modeling.Inkling2DynamicShortConvolution(C, E, HEADS, WIDTH, 0, 0)
    reference.load_state_dict({"static_weight": own.weight, "weight_proj.weight": own.dynamic.weight})
    torch.testing.assert_close(own(x, inputs, Forward(torch.zeros(2, 9, dtype=torch.long))), reference(x, inputs))


FORMS: dict[str, dict[str, Any]] = {
    "scaled": {"kv_conv": 3, "kv_conv_form": "scaled"},
    "dynamic": {"kv_conv": 3, "kv_conv_form": "dynamic", "token_sinks": True},
    "sinks": {"token_sinks": True, "sinks": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_training_learns_a_token_of_the_distance(form: str) -> None:
    attention = {"name": "grouped-query", "n_heads": 2, "n_kv_heads": 1, **FORMS[form]}
    model = GPT({"d_model": 16, "n_layers": 2, "context_length": 16, "attention": attention}, N_TOKENS, seed=0)
    assert_learns(model, repeated(3), steps=150)


@pytest.mark.parametrize("sinks", [False, True])
@torch.no_grad()
def test_sinks_of_tokens_are_logits_without_a_value(sinks: bool) -> None:
    fields = {"name": "multi-head", "n_heads": 2, "d_head": 5, "token_sinks": True, "sinks": sinks}
    spec = {"d_model": E, "n_layers": 1, "context_length": 16, "position": "none", "attention": fields}
    for backend in ("eager", "sdpa"):
        model = GPT({**spec, "attention_backend": backend}, 9).double()
        module: Any = model.blocks[0].attention
        for seed, parameter in enumerate(module.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=seed))
        x = draw(1, 7, E, seed=9)
        q, k, v = module.qkv(x)[0].view(7, 3, 2, 5).unbind(1)
        rows = []
        for t in range(7):
            for head in range(2):
                logit = module.token_sinks(x[0, t])[head] + (module.sinks[head] if sinks else 0)
                scores = torch.cat((k[: t + 1, head] @ q[t, head] * 5**-0.5, logit[None]))
                rows.append(scores.softmax(0)[:-1] @ v[: t + 1, head])
        wanted = module.output(torch.stack(rows).view(7, 10))
        torch.testing.assert_close(module(x, Forward(torch.zeros(1, 7, dtype=torch.long)))[0], wanted)


@pytest.mark.parametrize("kind", ["hybrid", "hybrid_sliding"])
@torch.no_grad()
def test_attention_equals_that_of_inkling_2(kind: str) -> None:
    modeling = pytest.importorskip("transformers.models.inkling2.modeling_inkling2")
    from transformers.models.inkling2 import Inkling2TextConfig

    full, n_tokens = kind == "hybrid", 11
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}
    config = Inkling2TextConfig(
        hidden_size=E, num_hidden_layers=1, layer_types=[kind],
        **sizes, **{f"swa_{key}": value for key, value in sizes.items()},
        sliding_window_size=4, rel_extent=5, d_rel=3, log_scaling_n_floor=3, log_scaling_alpha=0.7,
        qk_l2_clip_threshold=1.5, rel_l2_clip_threshold=0.8, attn_implementation="eager",
    )  # fmt: skip
    reference = (modeling.Inkling2FullAttention if full else modeling.Inkling2SlidingAttention)(config, 0).double()
    for seed, parameter in enumerate(reference.parameters()):
        parameter.copy_(draw(*parameter.shape, seed=seed))
    weights = dict(reference.named_parameters())
    names = ["q_proj", "gate_proj"] if full else ["q_proj", "k_proj", "v_proj", "gate_proj"]
    clip = {"name": "l2-clip", "bound": 1.5}
    attention = {
        "name": "grouped-query", "n_heads": 4, "n_kv_heads": 2, "d_head": 6, "output_gate": True, "token_sinks": True,
        "window": None if full else 4, "relative_width": 3, "relative_extent": 5 if full else 4,
        "relative_norm": {"name": "l2-clip", "bound": 0.8}, "v_norm": {"name": "rms", "scale": False, "eps": 1e-6},
        "qk_norm": clip, "k_norm": {**clip, "scale": False}, "qk_norm_width": "each-head",
        "kv_conv": 4, "kv_conv_form": "dynamic" if full else "scaled",
    }  # fmt: skip
    position = {"name": "query-temperature", "growth": "smooth", "strength": 0.7, "interval": 3}
    spec = {"d_model": E, "n_layers": 1, "attention": attention, "position": position if full else "none"}
    spec["block"] = {"name": "attention-residuals", "kv_inputs": full}
    module: Any = GPT(spec, 9).double().blocks[0].attention
    state = {
        ("query" if full else "qkv") + ".weight": torch.cat([weights[f"{name}.weight"] for name in names]),
        "q_norm.weight": weights["q_l2_clip.scale"],
        "relative.norm.weight": weights["rel_l2_clip.scale"],
        "relative.features.weight": weights["r_proj.weight"],
        "relative.table": weights["rel_logits_proj.proj"],
        "token_sinks.weight": weights["sink_proj.weight"],
        "output.weight": weights["o_proj.weight"],
    }
    for own in ("k", "v"):
        if full:
            state[f"{own}_conv.weight"] = weights[f"{own}_sconv.static_weight"]
            state[f"{own}_conv.dynamic.weight"] = weights[f"{own}_sconv.weight_proj.weight"]
            state["key.weight" if own == "k" else "value.weight"] = weights[f"{own}_proj.weight"]
        else:
            state[f"{own}_conv.weight"] = weights[f"{own}_sconv.conv1d.weight"]
    module.load_state_dict(state)
    x, k, v = (draw(2, n_tokens, E, seed=seed) for seed in (50, 51, 52))
    positions = torch.arange(n_tokens)
    distance = positions[:, None] - positions
    allowed = (distance >= 0) & (full | (distance < 4))
    mask = torch.zeros(1, 1, n_tokens, n_tokens, dtype=torch.float64).masked_fill(~allowed, -torch.inf)
    inputs = {"key_hidden_states": k, "value_hidden_states": v} if full else {}
    wanted, _ = reference(x, **inputs, attention_mask=mask, position_ids=positions[None])
    context = Forward(torch.zeros(2, n_tokens, dtype=torch.long))
    result = module(x, context, **({"kv_BTE": (k, v)} if full else {}))
    torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-5)  # the reference computes in fp32 in places
