"""Equality of exports with generated code, in transformers and without gptkit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from gptkit.core.errors import ExternalModelError
from gptkit.ejection.hugging_face.batched import batched
from gptkit.interop.formats.hugging_face.writing import write_directory
from gptkit.interop.tensor_files import TensorFiles
from gptkit.kinds.written import NotWrittenError, Written
from gptkit.model.gpt import GPT
from tests.support.compositions import BASE, GROUPED, SPECS
from tests.support.ejected import randomize
from tests.support.hugging_face import export_with_code, load_in_transformers, native, run_code

VOCABULARY = 61
LAYERED = {"recurrent": 6}
"""Layers of compositions that need more than `BASE` has."""
OWN: dict[str, dict[str, Any]] = {
    "llama-with-odd-norm": {
        "attention": {**GROUPED, "window": 6, "scale": 0.3, "qkv_bias": True},
        "position": "rotary",
        "norm": {"name": "layer", "shift": False},
        "block": "sandwich",
        "n_layers": 3,
        "layers": [{"attention": {"window": None}}, {"repeat": 2}],
        "head": {"name": "linear", "tied": True, "bias": True, "scale": 0.7, "softcap": 9.0},
        "embedding": {"name": "token", "scale": 3.0},
    },
    "dense-head": {
        "attention": {**GROUPED, "output_gate": True, "clip_qkv": 0.5},
        "norm": {"name": "layer", "scale": False},
        "head": {"name": "linear", "linear": "dense", "bias": True},
        "feedforward": {"name": "mlp", "activation": "xielu"},
    },
    "shifted-bound": {
        "attention": GROUPED,
        "head": {"name": "linear", "softcap": 9.0, "softcap_form": "sigmoid", "softcap_shift": -1.5, "softcap_width": 3.0},
    },
    "gate-biases": {
        "attention": {**GROUPED, "output_gate": True, "gate_bias": True},
        "block": {"name": "sandwich", "depth_scaled": True},
    },
    "gated-heads": {"attention": {**GROUPED, "head_gate": "softplus"}, "norm": {"name": "layer", "shift": False}},
    "only-windows": {"attention": {**GROUPED, "window": 4}, "norm": {"name": "layer", "offset": 1.0}},
    "only-recurrent": {
        "position": "none",
        "norm": "layer",
        "attention": {"name": "gated-delta", "n_heads": 2, "n_value_heads": 4, "d_key": 6, "d_value": 8},
        "layers": [{}, {"attention": {"name": "mamba2", "n_heads": 4, "d_head": 6, "n_groups": 2, "d_state": 5}}],
    },
    "only-lightning": {
        "position": "none",
        "norm": {"name": "layer", "shift": False},
        "attention": {"name": "lightning", "n_heads": 3, "d_head": 6},
    },
    "tables-of-distances": {
        "attention": {**GROUPED, "qk_norm": "layer", "qk_norm_width": "each-head"},
        "position": {"name": "shaw", "max_distance": 5},
        "layers": [{}, {"position": {"name": "t5-bias", "shared": False, "n_buckets": 6, "max_distance": 12}}],
        "head": {"name": "multi-token", "depth": 1},
    },
    "positions-by-length": {
        "attention": {"name": "latent", "n_heads": 4, "kv_rank": 12, "d_nope": 6, "d_rotary": 4, "d_value": 5},
        "position": {"name": "rotary", "temperature": 0.5, "temperature_interval": 3},
        "layers": [{}, {"attention": {"name": "short-conv", "width": 4, "bias": True}, "position": "none"}],
        "embedding": {"name": "token", "d_embedding": 12},
        "head": {"name": "linear", "tied": True, "bias": True},
    },
    "only-feed-forwards": {
        "block": {"name": "single-branch", "branch": "feedforward"},
        "norm": {"name": "layer", "scale": False},
    },
    "sparse-beside-recurrence": {
        "attention": {
            "name": "hybrid",
            "attention": {**SPECS["sparse-previous"]["attention"], "q_rank": 10},
            "recurrence": {"name": "lightning", "n_heads": 3, "d_head": 6},
        },
    },
    "experts-through-interface": {
        "attention": GROUPED,
        "norm": {"name": "layer", "shift": False},
        "feedforward": {
            "name": "experts",
            "n_experts": 6,
            "router": {"name": "top-k-softmax", "k": 2},
            "expert": {"name": "gated", "d_hidden": 10},
            "shared": {"name": "gated", "d_hidden": 12},
        },
    },
}
REFUSED = {"longrope", "dynamic", "adapters", "compressed", "engrams", "engrams-of-streams", "pooled-sparse"}
REFUSED |= {"shared-branches"}
CHANGED = {
    name: {"norm": {"name": "layer", "scale": False}}
    for name in ("none-in-some-layers", "sparse-latent", "sparse-previous", "branches", "latent-experts")
}
"""What is different in compositions that a family expresses."""


def models() -> dict[str, GPT]:
    specs = {
        name: {**BASE, "n_layers": LAYERED.get(name, 2), **spec, **CHANGED.get(name, {})}
        for name, spec in {**SPECS, **OWN}.items()
        if name not in REFUSED
    }
    return {name: randomize(GPT(spec, VOCABULARY)) for name, spec in specs.items()}


@pytest.mark.slow
def test_compositions_equal_gptkit_in_transformers(tmp_path: Path) -> None:
    for result in load_in_transformers(tmp_path, models()).values():
        result.check()


@pytest.mark.slow
def test_report_names_the_closest_family_and_the_contract(tmp_path: Path) -> None:
    made = models()
    for name, sentence in (
        ("book", "meets the contract of vLLM's Transformers backend, with tensor parallelism"),
        ("gated-heads", "meets the contract of vLLM's Transformers backend, with tensor parallelism"),
        ("gate-biases", "on one device, without tensor parallelism: the bias of the gates has a number for each head"),
        ("only-windows", "meets the contract of vLLM's Transformers backend, with tensor parallelism"),
        ("llama-with-odd-norm", "logits are scaled before their soft bound"),
        ("shifted-bound", "the soft bound of the logits is not softcap · tanh(logits / softcap)"),
        ("experts-through-interface", "each expert receives a number of tokens that depends on the data"),
        ("recurrent", "layers with a recurrent state do not call an attention function"),
        ("windows", "scores have terms, bounds or masks that an attention function does not take"),
        ("widths", "layers have different numbers or sizes of heads"),
        ("branches", "layers have none or several entries in the cache"),
        ("sparse-latent", "layers have none or several entries in the cache"),
        ("hybrid", "layers with a recurrent state do not call an attention function"),
        ("shared-keys", "layers have none or several entries in the cache"),
    ):
        report = export_with_code(made[name], tmp_path / name)
        assert "no family can express this model; the closest, " in report[0]
        assert sentence in report[2], name
        assert "gptkit does not execute the code" in report[3]


def test_norm_over_all_heads_has_no_plan_of_tensor_parallelism(tmp_path: Path) -> None:
    attention = {**GROUPED, "qk_norm": "layer", "qk_norm_width": "full"}
    report = export_with_code(GPT({**BASE, "attention": attention}, VOCABULARY), tmp_path / "full")
    assert "on one device, without tensor parallelism: the norm of queries and keys has weights for all heads" in report[2]
    assert "base_model_tp_plan" not in (tmp_path / "full" / "configuration_gptkit.py").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (SPECS["adapters"], "head 'linear' cannot be written for transformers with linear 'low-rank'"),
        (
            SPECS["shared-branches"],
            "'shared-branch' cannot be written for transformers: its code has no modules that layers",
        ),
        (SPECS["dynamic"], "rotary frequencies that depend on the length of the text"),
        (
            {"attention": {"name": "hybrid", "attention": "lightning", "recurrence": "mamba2"}, "position": "none"},
            "attention 'hybrid' cannot be written out with 'lightning' and 'mamba2': both keep state of earlier tokens",
        ),
    ],
)
def test_refusals_give_both_reasons(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    model = GPT({**BASE, "norm": {"name": "layer", "scale": False}, **changes}, VOCABULARY, device="meta")
    with pytest.raises(
        ExternalModelError, match=r"no family can express this model.*cannot be exported with code"
    ) as raised:
        write_directory(native(model), tmp_path / "out")
    assert message in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_templates_that_keep_other_tensors_in_the_cache_are_refused() -> None:
    text = "class $class_name(nn.Module):\n    def forward(self, x, cache):\n        {}\n"
    for line in ('return cache.get("state", x)', 'cache["inputs"] = x'):
        batched(Written("Kept", text.format(line), section="block"))
    for line, shown in (('return cache.get("last", x)', 'cache.get("last", …)'), ('cache["last"] = x', 'cache["last"]')):
        with pytest.raises(NotWrittenError, match=rf"block Kept cannot be written for transformers.*{re.escape(shown)} in"):
            batched(Written("Kept", text.format(line), section="block"))


def test_large_weights_are_written_in_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomize(GPT({**BASE, **SPECS["book"], "n_layers": 1}, VOCABULARY))
    export_with_code(model, tmp_path / "one")
    monkeypatch.setattr("gptkit.interop.formats.hugging_face.shards.SHARD_BYTES", 20_000)
    export_with_code(model, tmp_path / "several")
    one, several = TensorFiles(tmp_path / "one"), TensorFiles(tmp_path / "several")
    assert not (tmp_path / "several" / "model.safetensors").exists()
    assert len(list((tmp_path / "several").glob("model-*-of-*.safetensors"))) > 2
    assert one.entries == several.entries
    assert all(torch.equal(one.get(name), several.get(name)) for name in one.entries)


@pytest.mark.parametrize("router", ["sigmoid", "softmax-top-k", "network"])
def test_selection_bias_stays_in_fp32_in_a_bf16_model(router: str, tmp_path: Path) -> None:
    """As in gptkit: rounded to bf16, large biases would give tokens other experts."""
    fields = {"name": "experts", "n_experts": 4, "expert": {"name": "gated", "d_hidden": 8}}
    fields["router"] = {"name": router, "selection_bias": True}
    changes = {"norm": {"name": "layer", "scale": False}, "feedforward": fields, "n_layers": 1}
    model = randomize(GPT({**BASE, "attention": GROUPED, **changes}, VOCABULARY))
    export_with_code(model, tmp_path / "model")
    printed = run_code(
        "import torch; from transformers import AutoModelForCausalLM\n"
        "m = AutoModelForCausalLM.from_pretrained('model', trust_remote_code=True, dtype=torch.bfloat16)\n"
        "print(sorted({str(p.dtype) for n, p in m.named_parameters() if n.endswith('selection_bias')}), m.dtype)\n"
        "print(m(torch.zeros(1, 5, dtype=torch.long)).logits.dtype)",
        tmp_path,
    )
    assert printed.split("\n")[:2] == ["['torch.float32'] torch.bfloat16", "torch.bfloat16"]
