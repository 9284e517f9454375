"""Import and export of RWKV-7 in the layout of flash-linear-attention, against the paper's equations on its tensors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

import gptkit
from gptkit.core.errors import ExternalModelError

E, L, HEADS, SIZE, V = 24, 3, 3, 8, 300
RANKS = {"w": 5, "a": 4, "v": 3, "g": 7}
CONFIG: dict[str, Any] = {
    "model_type": "rwkv7",
    "architectures": ["RWKV7ForCausalLM"],
    "attn_mode": "chunk",
    "attn": None,
    "hidden_size": E,
    "hidden_ratio": 4.0,
    "intermediate_size": 32,
    "num_hidden_layers": L,
    "head_dim": SIZE,
    "num_heads": HEADS,
    "value_dim": [E] * L,
    "decay_low_rank_dim": RANKS["w"],
    "a_low_rank_dim": RANKS["a"],
    "v_low_rank_dim": RANKS["v"],
    "gate_low_rank_dim": RANKS["g"],
    "hidden_act": "sqrelu",
    "max_position_embeddings": 64,
    "norm_bias": True,
    "norm_eps": 1e-5,
    "norm_first": True,
    "fuse_norm": False,
    "tie_word_embeddings": False,
    "vocab_size": V,
}


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {"model.embeddings.weight": (V, E), "lm_head.weight": (V, E)}
    norms = ["model.norm", "model.layers.0.pre_norm"]
    for layer in range(L):
        place = f"model.layers.{layer}"
        norms += [f"{place}.attn_norm", f"{place}.ffn_norm", f"{place}.attn.g_norm"]
        shapes |= {f"{place}.attn.x_{use}": (1, 1, E) for use in "rwkvag"}
        shapes |= {f"{place}.attn.{name}_proj.weight": (E, E) for name in "rkvo"}
        shapes |= {f"{place}.attn.k_k": (E,), f"{place}.attn.k_a": (E,), f"{place}.attn.r_k": (HEADS, SIZE)}
        for use, rank in RANKS.items():
            if use == "v" and layer == 0:
                continue
            shapes[f"{place}.attn.{use}_lora.lora.0.weight"] = (rank, E)
            shapes[f"{place}.attn.{use}_lora.lora.2.weight"] = (E, rank)
            if use != "g":
                shapes[f"{place}.attn.{use}_lora.lora.2.bias"] = (E,)
        shapes |= {f"{place}.ffn.x_k": (E,), f"{place}.ffn.key.weight": (32, E), f"{place}.ffn.value.weight": (E, 32)}
    shapes |= {f"{norm}.{leaf}": (E,) for norm in norms for leaf in ("weight", "bias")}
    return {name: torch.randn(shape, generator=generator) * 0.5 for name, shape in shapes.items()}


def logits(weights: dict[str, Tensor], ids: list[int]) -> Tensor:
    """Compute the logits of one text by the equations of the paper, in fp64."""
    w = {name: value.double() for name, value in weights.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (E,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    x = norm(w["model.embeddings.weight"][ids], "model.layers.0.pre_norm")
    first: list[Tensor] = []
    for layer in range(L):
        place = f"model.layers.{layer}"
        attn = f"{place}.attn"
        u = norm(x, f"{place}.attn_norm")
        state = torch.zeros(HEADS, SIZE, SIZE, dtype=torch.float64)  # of each head: values by keys
        outputs = []
        for t in range(len(ids)):
            before = u[t - 1] if t else torch.zeros(E, dtype=torch.float64)
            mixed = {use: u[t] + (before - u[t]) * w[f"{attn}.x_{use}"].flatten() for use in "rwkvag"}

            def lora(use: str, activation: Any = lambda y: y, mixed: Any = mixed, attn: str = attn) -> Tensor:
                low = activation(w[f"{attn}.{use}_lora.lora.0.weight"] @ mixed[use])
                up = w[f"{attn}.{use}_lora.lora.2.weight"] @ low
                return up + w.get(f"{attn}.{use}_lora.lora.2.bias", torch.zeros(E, dtype=torch.float64))

            r, k, v = (w[f"{attn}.{use}_proj.weight"] @ mixed[use] for use in "rkv")
            decay = torch.exp(-math.exp(-0.5) * torch.sigmoid(lora("w", torch.tanh)))
            rate = torch.sigmoid(lora("a"))
            if layer:
                v = v + (first[t] - v) * torch.sigmoid(lora("v"))
            else:
                first.append(v)
            unit = F.normalize((k * w[f"{attn}.k_k"]).view(HEADS, SIZE), dim=-1)
            k = k * (1 + (rate - 1) * w[f"{attn}.k_a"])
            r, k, v, decay, rate = (part.view(HEADS, SIZE) for part in (r, k, v, decay, rate))
            removed = torch.einsum("hij,hj->hi", state, unit)
            state = state * decay[:, None] - removed[..., None] * (rate * unit)[:, None] + v[..., None] * k[:, None]
            y = torch.einsum("hij,hj->hi", state, r).flatten()
            y = F.group_norm(y[None], HEADS, w[f"{attn}.g_norm.weight"], w[f"{attn}.g_norm.bias"], SIZE * 1e-5)[0]
            y = y + ((r * k * w[f"{attn}.r_k"]).sum(-1, keepdim=True) * v).flatten()
            outputs.append(w[f"{attn}.o_proj.weight"] @ (y * lora("g", torch.sigmoid)))
        x = x + torch.stack(outputs)
        u = norm(x, f"{place}.ffn_norm")
        before = torch.cat((torch.zeros(1, E, dtype=torch.float64), u[:-1]))
        mixed_u = u + (before - u) * w[f"{place}.ffn.x_k"]
        x = x + (mixed_u @ w[f"{place}.ffn.key.weight"].T).relu().square() @ w[f"{place}.ffn.value.weight"].T
    return norm(x, "model.norm") @ w["lm_head.weight"].T


def save(directory: Path, weights: dict[str, Tensor], **changes: Any) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    save_file(weights, directory / "model.safetensors")
    return directory


def test_import_equals_the_paper_and_export_returns_the_tensors(tmp_path: Path) -> None:
    weights = tensors()
    run = gptkit.import_model(save(tmp_path / "external", weights), tmp_path / "run", tokenizer="byte")
    ids = torch.randint(V, (2, 30), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        result = run.model.double()(ids).logits
    for row in range(2):
        torch.testing.assert_close(result[row], logits(weights, ids[row].tolist()), rtol=1e-6, atol=1e-6)
    gptkit.export_model(tmp_path / "run", tmp_path / "out")
    exported = load_file(tmp_path / "out" / "model.safetensors")
    assert exported.keys() == weights.keys()
    assert all(torch.equal(exported[name], value) for name, value in weights.items())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    known = {key: value for key, value in CONFIG.items() if key in config}
    assert {key: config[key] for key in known} == known


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attn": {"layers": [1]}}, "no layers of softmax attention"),
        ({"hidden_act": "gelu"}, "only the squared ReLU"),
        ({"head_dim": 7}, "not a multiple"),
        ({"num_heads": 2}, "3 heads of 8 features"),
        ({"value_dim": [24, 24, 48]}, "values have the width of the model"),
    ],
)
def test_configurations_that_gptkit_does_not_compute_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExternalModelError, match=message):
        gptkit.import_model(save(tmp_path / "external", {}, **changes), tmp_path / "run", tokenizer="byte")
