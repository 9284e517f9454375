"""Compositions that show every form of the templates of `gptkit eject`."""

from __future__ import annotations

from typing import Any

__all__ = ["BASE", "GROUPED", "HEADS", "SPECS"]

BASE: dict[str, Any] = {"d_model": 32, "n_layers": 2, "context_length": 48}
HEADS = {"n_heads": 4, "d_head": 8}
GROUPED = {"name": "grouped-query", "n_kv_heads": 2, **HEADS}
BOOK = {
    "embedding": {"name": "token", "dropout": 0.1},
    "position": "learned",
    "attention": {"name": "multi-head", **HEADS, "output_bias": True, "dropout": 0.1},
    "norm": "layer",
    "feedforward": {"name": "mlp", "activation": "gelu-tanh"},
    "block": {"name": "pre-norm", "dropout": 0.1},
}
RMS = {"name": "rms", "eps": 1e-6, "cast": "after"}
BRANCH = {
    "name": "shared-branch",
    "attention": {**GROUPED, "scale": 0.4, "output_gate": True},
    "feedforward": {"name": "gated", "d_hidden": 20},
    "position": "t5-bias",
    "attention_rank": 3,
    "feedforward_rank": 5,
}
SPARSE_LATENT = {
    "name": "sparse-latent",
    "n_heads": 4,
    "kv_rank": 12,
    "q_rank": 10,
    "d_nope": 6,
    "d_rotary": 4,
    "d_value": 5,
}
SPARSE_LATENT |= {"top_k": 6, "index_heads": 5, "d_index": 7}
LAYERED = {"d_embedding": 6, "norm": RMS, "projection": True, "activation": "gelu-tanh"}
SPECS: dict[str, dict[str, Any]] = {
    "book": BOOK,
    "windows": {
        "attention": {**GROUPED, "softcap": 5.0, "qk_norm": {"name": "rms", "eps": 1e-3}},
        "position": {"name": "rotary", "fraction": 0.5, "layout": "interleaved"},
        "norm": {"name": "rms", "offset": 1, "cast": "after"},
        "block": "sandwich",
        "n_layers": 5,
        "layers": [{"repeat": 2, "attention": {"window": 5}, "position": {"base": 100.0}}, {}],
        "head": {"name": "linear", "tied": True, "softcap": 3.0, "scale": 0.5},
        "embedding": {"name": "token", "scale": "sqrt"},
    },
    "shared-keys": {
        "attention": {**GROUPED, "qk_norm": RMS, "v_norm": {**RMS, "scale": False}, "scale": 1.0},
        "position": {"name": "rotary", "scaling": "proportional"},
        "norm": RMS,
        "n_layers": 6,
        "block": {"name": "per-layer-embedding", **LAYERED, "output_scale": "fixed", "block": "sandwich"},
        "layers": [
            {"attention": {"window": 5}, "position": {"base": 100.0, "scaling": None}},
            {"attention": {"d_head": 12, "tie_kv": True, "n_kv_heads": 1}},
            {"attention": {"window": 5, "reuse_kv": True}, "position": {"base": 100.0, "scaling": None}},
            {"attention": {"d_head": 12, "n_kv_heads": 1, "reuse_kv": True}, "feedforward": {"d_hidden": 40}},
            {"attention": {"window": 5, "reuse_kv": True}, "position": {"base": 100.0, "scaling": None}},
            {"attention": {"d_head": 12, "n_kv_heads": 1, "reuse_kv": True}},
        ],
    },
    "streams": {
        "attention": {**GROUPED, "qk_norm": "rms"},
        "n_layers": 4,
        "block": {"name": "altup", "streams": 3, **LAYERED, "n_ids": 40, "block": {"name": "laurel", "rank": 5}},
        "layers": [{"feedforward": {"name": "gated", "sparsity": 0.8}}, {}, {"attention": {"reuse_kv": True}}, {}],
    },
    "mixed-streams": {
        "attention": GROUPED,
        "n_layers": 3,
        "block": {"name": "manifold-hyper-connections", "streams": 3, "iterations": 4, "dropout": 0.1},
    },
    "streams-of-two-numbers": {
        "n_layers": 4,
        "layers": [{"block": {"name": "manifold-hyper-connections", "streams": each}} for each in (2, 3)],
    },
    "kept-streams": {
        "attention": GROUPED,
        "n_layers": 3,
        "block": {
            "name": "manifold-hyper-connections",
            "streams": 2,
            "mixing": "none",
            "write_eps": 1e-3,
            "read_bias": -0.5,
        },
    },
    "attended-sources": {"attention": GROUPED, "n_layers": 3, "block": {"name": "attention-residuals", "dropout": 0.1}},
    "groups-of-sources": {
        "attention": GROUPED,
        "n_layers": 4,
        "block": {
            "name": "attention-residuals",
            "group": 3,
            "score_scale": 0.3,
            "normalize_sources": True,
            "output_conv": 3,
            "output_conv_scaled": True,
        },
    },
    "two-groups-of-sources": {
        "n_layers": 4,
        "layers": [{"block": {"name": "attention-residuals", "group": group}} for group in (None, 2)],
    },
    "gated-streams": {
        "attention": GROUPED,
        "n_layers": 3,
        "block": {"name": "gated-hyper-connections", "streams": 2, "rank": 5, "write_scale": 1.5, "dropout": 0.1},
    },
    "block-sparse": {
        "attention": {
            "name": "block-sparse",
            "n_heads": 4,
            "n_kv_heads": 2,
            "d_head": 8,
            "qk_norm": "rms",
            "block_size": 4,
            "top_blocks": 3,
        },
        "position": {"name": "rotary", "fraction": 0.5},
        "n_layers": 3,
        "layers": [
            {},
            {"attention": {"local_blocks": 0, "index_heads": 4, "d_index": 9, "sinks": True, "output_gate": True}},
            {"attention": {"window": 9, "local_blocks": 2, "softcap": 3.0}},
        ],
    },
    "engrams": {
        "attention": GROUPED,
        "n_layers": 4,
        "block": {"name": "engram", "heads": 2, "d_embedding": 12, "table_rows": 30, "boundary": 3},
        "layers": [
            {},
            {"block": {"max_ngram": 2, "conv_width": 3, "row_multiple": 16}},
            {"block": {"boundary": None, "block": "sandwich"}},
            {"block": "parallel"},
        ],
    },
    "engrams-of-streams": {
        "attention": GROUPED,
        "n_layers": 4,
        "block": {"name": "gated-hyper-connections", "streams": 3, "rank": 5},
        "layers": [
            {},
            {
                "block": {
                    "name": "engram",
                    "heads": 1,
                    "d_embedding": 8,
                    "table_rows": 20,
                    "block": {"name": "gated-hyper-connections", "streams": 3, "rank": 5},
                }
            },
        ],
    },
    "pooled-sparse": {
        "attention": {
            "name": "pooled-sparse",
            "n_heads": 4,
            "n_kv_heads": 2,
            "d_head": 8,
            "qk_norm": "rms",
            "block_size": 3,
            "top_blocks": 2,
            "index_heads": 9,
        },
        "position": {"name": "rotary", "fraction": 0.5},
        "n_layers": 3,
        "layers": [
            {},
            {"attention": {"d_index": 9, "sinks": True, "output_gate": True}},
            {"attention": {"block_size": 4, "top_blocks": 1, "d_index": 5, "softcap": 3.0}},
        ],
    },
    "cycles": {
        "attention": {**GROUPED, "output_gate": True},
        "norm": {"name": "rms", "scale": False},
        "block": {"name": "hierarchical", "blocks": 2, "high_cycles": 2, "low_cycles": 2, "gradient_cycles": [1]},
        "n_layers": 1,
    },
    "cycles-of-sandwiches": {
        "attention": GROUPED,
        "block": {"name": "hierarchical", "blocks": 1, "low_cycles": 2, "start": "learned", "block": "sandwich"},
    },
    "none-in-some-layers": {"attention": GROUPED, "n_layers": 4, "layers": [{}, {"position": "none"}]},
    "widths": {
        "attention": {"name": "multi-head", **HEADS, "qk_norm": "rms", "qk_norm_width": "full", "clip_qkv": 0.5},
        "layers": [{}, {"attention": {"n_heads": 2, "d_head": 12}, "feedforward": {"d_hidden": 20}, "norm": "layer"}],
        "feedforward": {"name": "gated", "d_hidden": 24, "bias": True, "clamp": 0.7, "up_offset": 1.0},
        "head": {"name": "linear", "bias": True},
    },
    "alibi": {
        "attention": {"name": "multi-head", "n_heads": 3, "d_head": 8, "window": 7, "scale": 0.5, "sinks": True},
        "position": {"name": "alibi", "scaled": True},
        "block": {"name": "parallel", "norms": 2, "residual_scale": 0.5, "dropout": 0.2},
        "feedforward": {"name": "mlp", "activation": "relu-squared", "bias": False, "dropout": 0.1},
        "embedding": {"name": "token", "d_embedding": 12, "norm": "layer", "scale": 2.0},
        "head": {"name": "linear", "tied": True, "bias": True},
    },
    "sinusoidal": {
        "position": {"name": "sinusoidal", "scale": 0.5, "layout": "half", "offset": 2, "endpoint": True},
        "attention": {**GROUPED, "output_gate": True, "qkv_bias": True},
        "block": "deep-norm",
        "norm": {"name": "layer", "offset": 1.0},
        "feedforward": {"name": "mlp", "activation": "quick-gelu"},
    },
    "teaching": {
        "attention": {"name": "single-head", "d_head": 6, "qkv_bias": True, "window": 9},
        "layers": [
            {},
            {"attention": {"name": "simple", "scaled": True}},
            {"attention": {"name": "stacked-heads", "n_heads": 2, "qkv_bias": True}},
        ],
        "norm": {"name": "layer", "scale": False},
        "block": {"name": "pre-norm", "shortcut": False, "residual_scale": 1.5},
    },
    "experts": {
        "attention": {**GROUPED, "chunk": 6},
        "position": {"name": "rotary", "reverse": True, "scaling": {"name": "linear", "factor": 3.0}},
        "feedforward": {
            "name": "experts",
            "n_experts": 6,
            "router": {"name": "sigmoid", "k": 2, "n_groups": 3, "top_groups": 2, "selection_bias": True, "scale": 2.5},
            "expert": {"name": "mlp", "d_hidden": 10},
            "shared": {"name": "gated", "d_hidden": 12},
            "shared_gate": True,
        },
        "layers": [{"feedforward": {"name": "gated", "d_hidden": 40}}, {}],
        "norm": "none",
        "final_norm": "rms",
    },
    "latent": {
        "attention": {"name": "latent", "n_heads": 4, "kv_rank": 12, "d_nope": 6, "d_rotary": 4, "d_value": 5, "window": 9},
        "layers": [{}, {"attention": {"q_rank": 10, "bias": True, "scale": 0.3, "head_gate": True}}],
    },
    "narrow-values": {
        "attention": {**GROUPED, "d_value": 5, "value_scale": 0.7, "window": 6, "qkv_bias": True},
        "layers": [{}, {"attention": {"output_gate": True, "sinks": True, "n_kv_heads": 4}}],
    },
    "reused-narrow-values": {
        "attention": {**GROUPED, "d_value": 5, "qk_norm": "rms", "value_scale": 0.7},
        "n_layers": 4,
        "layers": [
            {},
            {"attention": {"reuse_kv": True, "output_gate": True}},
            {"attention": {"reuse_kv": True, "n_heads": 2, "qkv_bias": True}},
            {"attention": {"n_kv_heads": 1, "output_gate": True}},
        ],
        "norm": {"name": "layer", "scale": False},
    },
    "equal-shares": {
        "attention": {**GROUPED, "output_gate": True, "gate_bias": True, "qk_norm": "rms"},
        "position": {"name": "query-temperature", "growth": "power", "strength": 0.3, "interval": 5},
        "n_layers": 3,
        "layers": [{"position": "rotary", "attention": {"window": 6}}, {"repeat": 2}],
        "block": {"name": "sandwich", "depth_scaled": True, "residual_scale": 0.7, "output_scale": "learned"},
        "norm": {"name": "layer", "scale": False},
    },
    "reused-gates": {
        "attention": {**GROUPED, "output_gate": True, "gate_bias": True},
        "n_layers": 3,
        "layers": [{}, {"attention": {"reuse_kv": True}}, {"attention": {"tie_kv": True, "n_heads": 2}}],
    },
    "head-gates": {
        "attention": {**GROUPED, "head_gate": "softplus"},
        "layers": [{}, {"attention": {"head_gate": "sigmoid", "output_gate": True, "n_heads": 2}}],
        "norm": {"name": "layer", "scale": False},
    },
    "kimi-delta": {
        "position": "none",
        "attention": {"name": "kimi-delta", "n_heads": 2, "d_key": 6, "d_value": 8, "decay_rank": 5, "gate_rank": 7},
        "n_layers": 3,
        "layers": [
            {},
            {"attention": {"conv_width": 3, "decay_rank": None, "gate_rank": None, "decay_floor": -5.0, "norm": "layer"}},
            {"attention": {"name": "latent", "n_heads": 4, "kv_rank": 12, "d_nope": 6, "d_rotary": 4, "d_value": 5}},
        ],
        "norm": "layer",
    },
    "delta-heads": {
        "position": "none",
        "attention": {"name": "kimi-delta", "n_heads": 2, "d_key": 6, "d_value": 8, "decay_rank": 5, "gate_rank": 7},
        "n_layers": 5,
        "layers": [
            {},
            {"attention": {"n_heads": 4, "d_key": 5, "d_value": 7, "conv_width": 3, "decay_rank": 4, "gate_rank": 6}},
            {"attention": {"name": "gated-delta", "n_heads": 2, "n_value_heads": 4, "d_key": 6, "d_value": 8}},
            {"attention": {"name": "gated-delta", "n_heads": 3, "n_value_heads": 3, "d_key": 5, "d_value": 9}},
            {"attention": {"name": "multi-head", **HEADS}, "position": "rotary"},
        ],
        "norm": "layer",
    },
    "sparse-latent": {
        "attention": {
            **SPARSE_LATENT,
            "index_layout": "interleaved",
            "head_gate": True,
        },
        "layers": [{}, {"attention": {"q_rank": None, "window": 20, "top_k": 9, "index_layout": "same"}}],
    },
    "hash-routers": {
        "feedforward": {
            "name": "experts",
            "n_experts": 5,
            "router": {"name": "hash", "table": True, "scale": 1.5},
            "expert": {"name": "gated", "d_hidden": 12},
            "shared": {"name": "gated", "d_hidden": 10},
        },
        "n_layers": 3,
        "layers": [
            {},
            {"feedforward": {"router": {"table": False, "score": "softmax"}}},
            {"feedforward": {"router": "sigmoid"}},
        ],
    },
    "routers-by-id-or-score": {
        "feedforward": {
            "name": "experts",
            "n_experts": 5,
            "router": {"name": "hash", "table": True, "score": "sigmoid"},
            "expert": {"name": "gated", "d_hidden": 12},
        },
        "layers": [{}, {"feedforward": {"router": {"name": "sigmoid", "selection_bias": True}}}],
    },
    "compressed": {
        "attention": {
            "name": "compressed",
            "n_heads": 4,
            "d_head": 10,
            "d_rotary": 4,
            "q_rank": 9,
            "sliding_window": 5,
            "block_size": 3,
            "top_k": 2,
            "index_heads": 5,
            "d_index": 8,
            "sinks": True,
            "output_groups": 2,
            "output_rank": 6,
        },
        "feedforward": {
            "name": "experts",
            "n_experts": 5,
            "router": {"name": "hash", "table": True},
            "expert": {"name": "gated", "d_hidden": 12},
        },
        "n_layers": 4,
        "layers": [
            {},
            {"attention": {"top_k": None, "overlap": False, "block_size": 4}, "feedforward": {"router": "sqrt-softplus"}},
            {"attention": {"block_size": None}, "feedforward": {"router": {"table": False, "score": "sigmoid"}}},
            {"feedforward": "gated"},
        ],
    },
    "sparse-previous": {
        "attention": {
            "name": "sparse-latent",
            "n_heads": 2,
            "kv_rank": 12,
            "d_nope": 6,
            "d_rotary": 4,
            "top_k": 5,
            "index_heads": 5,
            "d_index": 7,
            "window": 20,
            "sinks": True,
            "output_gate": True,
        },
        "n_layers": 3,
        "layers": [{}, {"repeat": 2, "attention": {"indexer": "previous"}}],
    },
    "gated-norms": {
        "attention": {
            **SPARSE_LATENT,
            "query_latents": "both",
            "output_gate": True,
            "gate_input": "queries",
        },
        "norm": {"name": "gated", "rank": 3},
        "n_layers": 4,
        "layers": [
            {"block": {"feedforward_norm": "layer"}},
            {"attention": {"query_latents": "normed"}},
            {"attention": {"gate_input": "layer", "scale_latents": True}, "norm": {"norm": "layer", "rank": 4}},
            {"attention": {"name": "latent", "output_gate": False}, "norm": "rms"},
        ],
    },
    "gated-queries": {
        "attention": {
            "name": "latent",
            "n_heads": 4,
            "kv_rank": 12,
            "d_nope": 6,
            "d_rotary": 4,
            "d_value": 5,
            "output_gate": True,
            "gate_input": "queries",
        },
        "norm": {"name": "layer", "scale": False},
        "layers": [{}, {"norm": "gated", "block": {"feedforward_norm": {"name": "gated", "norm": "layer", "rank": 5}}}],
    },
    "shared-t5": {"attention": GROUPED, "position": {"name": "t5-bias", "n_buckets": 6, "max_distance": 12}},
    "latent-experts": {
        "attention": GROUPED,
        "feedforward": {
            "name": "experts",
            "n_experts": 4,
            "latent": 20,
            "router": {"name": "top-k-softmax", "k": 2},
            "expert": {"name": "gated", "d_hidden": 12},
            "shared": {"name": "gated", "d_hidden": 10},
        },
        "layers": [{}, {"feedforward": {"expert": {"name": "mlp", "d_hidden": 9, "bias": True}, "latent": 16}}],
    },
    "experts-between-norms": {
        "attention": GROUPED,
        "block": {"name": "sandwich", "feedforward_input_norm": False, "output_scale": "learned"},
        "feedforward": {
            "name": "experts",
            "n_experts": 4,
            "router": {"name": "softmax-top-k", "norm": "rms", "score_scale": 0.3, "expert_scale": True, "scale": 1.5},
            "expert": {"name": "gated", "d_hidden": 12},
            "shared": {"name": "gated", "d_hidden": 10},
            "branch_norm": {"name": "rms", "cast": "after"},
        },
        "layers": [
            {},
            {"feedforward": {"router": {"name": "top-k-softmax", "norm": "rms", "score_scale": 2.0}, "shared": None}},
        ],
    },
    "branches": {
        "block": "single-branch",
        "attention": {**GROUPED, "window": 6},
        "n_layers": 4,
        "layers": [
            {"block": {"residual_scale": 0.5, "dropout": 0.1}},
            {"block": {"branch": "feedforward"}, "attention": {"window": None}, "position": "none"},
        ],
    },
    "recurrent": {
        "position": "none",
        "attention": {"name": "mamba2", "n_heads": 4, "d_head": 6, "n_groups": 2, "d_state": 5, "bias": True},
        "layers": [
            {"repeat": 2},
            {"attention": {"norm": "before", "conv_width": 3, "step_min": 0.1, "step_max": 0.9, "activation": "gelu"}},
            {"attention": {"norm": "none", "conv_bias": False, "norm_groups": 1}},
            {"attention": {"name": "gated-delta", "n_heads": 2, "n_value_heads": 4, "d_key": 6, "d_value": 8}},
            {"attention": {"name": "multi-head", **HEADS}, "position": "rotary"},
        ],
    },
    "selective": {
        "position": "none",
        "attention": {
            "name": "mamba1",
            "d_inner": 20,
            "d_state": 5,
            "step_rank": 3,
            "norm": {"name": "rms", "scale": False},
        },
        "n_layers": 6,
        "layers": [
            {},
            {
                "attention": {
                    "d_inner": 24,
                    "conv_width": 3,
                    "conv_bias": False,
                    "bias": True,
                    "activation": "gelu",
                    "norm": "layer",
                }
            },
            {"attention": {"norm": "none", "activation": "xielu", "step_rank": 2, "n_heads": 4}},
            {"attention": {"name": "multi-head", **HEADS}, "position": "rotary"},
            {"attention": {"name": "rg-lru", "n_heads": 2}},
            {
                "attention": {
                    "name": "rg-lru",
                    "d_inner": 12,
                    "n_heads": 3,
                    "bias": False,
                    "conv_width": 2,
                    "activation": "xielu",
                }
            },
        ],
    },
    "selective-heads": {
        "position": "none",
        "attention": {"name": "mamba1", "d_inner": 24, "n_heads": 3, "d_state": 5, "norm": "rms"},
        "layers": [{}, {"attention": {"n_heads": 2, "bias": True, "conv_bias": False, "d_state": 4}}],
        "n_layers": 3,
    },
    "differential": {
        "attention": {"name": "differential", "n_heads": 2, "d_head": 8},
        "n_layers": 3,
        "layers": [
            {},
            {"attention": {"n_heads": 4, "n_kv_heads": 2, "d_head": 4, "qkv_bias": True, "output_bias": True, "window": 5}},
            {"attention": {"norm": RMS, "dropout": 0.1, "lambda_init": 0.3}},
        ],
    },
    "differential-biased": {"position": "alibi", "attention": {"name": "differential", "n_heads": 4, "n_kv_heads": 2}},
    "experts-beside-layers": {
        "attention": {**GROUPED, "window": 6},
        "block": {
            "name": "shortcut-experts",
            "experts": {
                "name": "experts",
                "n_experts": 3,
                "identity_experts": 2,
                "router": {"name": "softmax-top-k", "k": 2, "selection_bias": True, "renormalize": False, "scale": 2.5},
                "expert": {"name": "gated", "d_hidden": 12},
            },
        },
        "feedforward": {"name": "gated", "d_hidden": 20},
    },
    "dropped-experts-beside-layers": {
        "attention": {"name": "latent", "n_heads": 3, "kv_rank": 12, "q_rank": 10, "d_nope": 6, "d_rotary": 4, "d_value": 5},
        "block": {"name": "shortcut-experts", "dropout": 0.1, "experts": "mlp"},
    },
    "identity-experts": {
        "attention": GROUPED,
        "feedforward": {
            "name": "experts",
            "n_experts": 4,
            "identity_experts": 3,
            "expert": {"name": "mlp", "d_hidden": 12, "bias": True},
            "latent": 10,
        },
        "layers": [{}, {"feedforward": {"weights_on": "input", "latent": None, "expert": {"activation": "xielu"}}}],
    },
    "short-convolutions": {
        "position": {"name": "query-temperature", "growth": "smooth", "strength": 0.5, "interval": 3},
        "attention": {**GROUPED, "qk_norm": RMS, "scale": 0.2, "kv_conv": 3, "relative_width": 3, "relative_extent": 5},
        "block": {"name": "pre-norm", "output_conv": 4},
        "feedforward": {"name": "gated", "d_hidden": 20, "hidden_norm": {"name": "affine", "bias": "none", "shared": True}},
        "n_layers": 4,
        "layers": [
            {},
            {"attention": {"n_kv_heads": 4, "window": 6, "relative_extent": 6}, "position": "none"},
            {"attention": {"d_value": 5, "kv_conv": 2}, "block": {"output_norm": "rms", "output_conv": 2}},
            {
                "attention": {"tie_kv": True, "relative_width": None, "relative_extent": None},
                "feedforward": {
                    "name": "experts",
                    "n_experts": 5,
                    "router": {"name": "sigmoid", "k": 2, "always": 2, "selection_bias": True, "scale": 1.5},
                    "expert": {"name": "gated", "d_hidden": 12, "hidden_norm": None},
                    "output_norm": {"name": "affine", "bias": "none", "shared": True},
                },
            },
        ],
    },
    "inputs-of-keys": {
        "position": {"name": "query-temperature", "growth": "smooth", "strength": 0.5, "interval": 3},
        "attention": {
            **GROUPED,
            "qk_norm": {"name": "l2-clip", "bound": 1.5},
            "k_norm": {"name": "l2-clip", "bound": 1.5, "scale": False},
            "qk_norm_width": "each-head",
            "v_norm": {"name": "rms", "scale": False},
            "output_gate": True,
            "token_sinks": True,
            "kv_conv": 3,
            "kv_conv_form": "dynamic",
            "relative_width": 3,
            "relative_extent": 5,
            "relative_norm": {"name": "l2-clip", "bound": 0.7},
        },
        "feedforward": {
            "name": "experts",
            "n_experts": 4,
            "router": {"name": "sigmoid", "k": 2, "selection_bias": True, "scale": 1.5},
            "expert": {
                "name": "gated",
                "d_hidden": 12,
                "activation": {"name": "capped-silu", "cap": 0.7},
                "up_softcap": 0.4,
            },
        },
        "block": {"name": "attention-residuals", "group": 2, "kv_inputs": True},
        "n_layers": 5,
        "layers": [
            {},
            {"attention": {"kv_conv_form": "scaled", "window": 6}, "block": {"kv_inputs": False}, "position": "none"},
            {"attention": {"d_value": 5, "sinks": True}},
            {"attention": {"d_value": 5, "relative_width": None, "relative_extent": None, "relative_norm": None}},
            {"attention": {"d_value": 5, "output_gate": False, "token_sinks": False}, "block": {"kv_inputs": False}},
        ],
    },
    "relative-logits": {
        "position": "alibi",
        "attention": {
            "name": "multi-head",
            **HEADS,
            "relative_width": 2,
            "relative_extent": 4,
            "softcap": 5.0,
            "sinks": True,
        },
        "n_layers": 3,
        "layers": [{}, {"attention": {"reuse_kv": True, "relative_width": 3, "dropout": 0.1}}, {"position": "t5-bias"}],
    },
    "convolutional": {
        "attention": {"name": "convolutional", "n_heads": 4, "n_kv_heads": 2, "d_head": 6, "sliding_window": 5},
        "embedding": {"norm": {"name": "affine", "bias": "before"}},
        "block": {"name": "pre-norm", "output_norm": "affine", "stream_norm": {"name": "affine", "bias": "none"}},
        "feedforward": {
            "name": "experts",
            "n_experts": 3,
            "zero_experts": 2,
            "router": {
                "name": "network",
                "k": 1,
                "d_hidden": 9,
                "reads_previous": True,
                "renormalize": False,
                "selection_bias": True,
            },
            "expert": {"name": "gated", "d_hidden": 12},
        },
        "n_layers": 3,
        "layers": [
            {},
            {"attention": {"feature_width": 3, "head_width": 1, "qkv_bias": True, "sliding_window": None}},
            {"attention": {"n_kv_heads": 1, "scale": 0.4, "dropout": 0.1, "norm": "layer"}, "block": {"output_norm": "rms"}},
        ],
    },
    "convolutional-biased": {
        "position": "alibi",
        "attention": {"name": "convolutional", "n_heads": 2, "n_kv_heads": 2, "d_head": 8, "output_bias": True},
        "feedforward": {
            "name": "experts",
            "n_experts": 3,
            "identity_experts": 2,
            "zero_experts": 1,
            "router": {"name": "network", "hidden_layers": 1, "activation": "xielu", "score": "sigmoid", "bias": True},
            "expert": {"name": "mlp", "d_hidden": 12},
        },
        "layers": [{}, {"feedforward": {"router": {"hidden_bias": False, "scale": 2.5, "norm": "none", "d_hidden": 5}}}],
    },
    "expert-heads": {
        "attention": {"name": "expert-heads", "n_experts": 4, "n_kv_heads": 2, "d_head": 8},
        "feedforward": {"name": "experts", "n_experts": 3, "expert": {"name": "mlp", "d_hidden": 9}, "output_bias": True},
        "n_layers": 3,
        "layers": [
            {},
            {"attention": {"output_bias": True, "router": {"k": 1}, "n_kv_heads": 3, "window": 5}},
            {"attention": {"router": "sigmoid", "dropout": 0.1}, "feedforward": {"output_norm": "rms", "scale": 0.5}},
        ],
    },
    "hashed-expert-heads": {
        "attention": {"name": "expert-heads", "n_experts": 4, "n_kv_heads": 2, "d_head": 8, "router": "hash"},
        "layers": [{}, {"attention": {"router": "top-k-softmax"}}],
    },
    "layer-before-the-head": {
        "embedding": {"name": "token", "norm": "layer"},
        "attention": GROUPED,
        "n_layers": 3,
        "layers": [
            {"block": {"attention_input_norm": False}},
            {},
            {
                "block": {"name": "single-branch", "branch": "feedforward", "shortcut": False},
                "feedforward": {"name": "single-layer", "activation": "gelu-tanh"},
            },
        ],
    },
    "inner-norms": {
        "attention": {**GROUPED, "output_norm": RMS},
        "feedforward": {"name": "gated", "activation": "relu-squared", "hidden_norm": RMS},
        "n_layers": 4,
        "layers": [
            {},
            {"attention": {"output_gate": True, "d_value": 6}, "feedforward": {"dropout": 0.1, "output_scale": 0.5}},
            {"attention": {"name": "multi-head", **HEADS, "head_gate": "sigmoid", "output_norm": "layer"}},
            {
                "feedforward": {
                    "name": "experts",
                    "n_experts": 3,
                    "expert": {"name": "gated", "d_hidden": 9, "hidden_norm": RMS},
                }
            },
        ],
    },
    "exponential": {
        "position": "none",
        "attention": {"name": "mlstm", "n_heads": 2, "d_key": 5, "d_value": 7},
        "n_layers": 4,
        "layers": [
            {},
            {"attention": {"n_heads": 3, "norm": "rms", "gate_softcap": None, "eps": 0.01, "norm_eps": 1e-3}},
            {"attention": {"norm": "none", "gate_softcap": 4.0, "d_value": 4}},
            {"attention": {"name": "multi-head", **HEADS}, "position": "rotary"},
        ],
    },
    "time-mixing": {
        "embedding": {"name": "token", "norm": "layer"},
        "position": "none",
        "attention": {"name": "rwkv4", "d_inner": 20},
        "block": {"name": "channel-mixing", "dropout": 0.1},
        "feedforward": {"name": "mlp", "activation": "relu-squared", "bias": False},
        "norm": "layer",
        "n_layers": 4,
        "layers": [
            {},
            {"attention": {"d_inner": 12}, "norm": {"eps": 0.01}},
            {"attention": {"name": "multi-head", **HEADS}, "position": "rotary"},
            {"attention": {"name": "mamba1", "d_inner": 20, "d_state": 5}, "feedforward": "gated", "block": "pre-norm"},
        ],
    },
    "lightning": {
        "position": "none",
        "attention": {"name": "lightning", "n_heads": 3, "d_head": 6},
        "block": {"name": "deep-norm", "alpha": 1.4, "residual_scale": 0.7},
        "n_layers": 4,
        "layers": [
            {"repeat": 2},
            {"attention": {"norm": "none", "output_gate": False, "slower_in_later_layers": False, "activation": "xielu"}},
            {"attention": {"name": "multi-head", **HEADS}, "position": "rotary", "block": {"feedforward_alpha": 0.6}},
        ],
    },
    "hybrid": {
        "attention": {
            "name": "hybrid",
            "attention": {**GROUPED, "window": 6},
            "recurrence": {
                "name": "mamba2",
                "n_heads": 4,
                "d_head": 6,
                "d_state": 5,
                "projection_scales": [0.5, 1.5, 0.75, 1.25, 0.9],
            },
            "recurrence_scale": 0.5,
            "attention_input_scale": 1.2,
        },
        "feedforward": {"name": "gated", "d_hidden": 24, "gate_scale": 0.8, "output_scale": 1.2},
        "n_layers": 3,
        "layers": [
            {},
            {"attention": {"attention_scale": 0.9, "recurrence": {"name": "gated-delta", "d_key": 6, "d_value": 8}}},
            {"attention": GROUPED},
        ],
    },
    "shared-branches": {
        "attention": {"name": "multi-head", **HEADS, "window": 6},
        "position": "rotary",
        "n_layers": 5,
        "layers": [
            {"block": BRANCH},
            {},
            {"block": {**BRANCH, "group": 1, "attention_rank": None, "feedforward": {"name": "mlp", "bias": True}}},
            {"block": {**BRANCH, "attention_rank": 2, "feedforward_rank": 4, "dropout": 0.1}},
            {"block": {**BRANCH, "attention_rank": None, "feedforward_rank": None, "embedding": False}},
        ],
    },
    "adapters": {
        "linear": {"name": "low-rank", "rank": 3, "dropout": 0.1},
        "attention": {**GROUPED, "qk_norm": "layer", "qk_norm_width": "each-head", "output_gate": True},
        "head": {"name": "multi-token", "depth": 2, "head": {"name": "linear", "linear": "low-rank", "bias": True}},
        "feedforward": {"name": "mlp", "activation": "xielu"},
        "position": {"name": "rotary", "temperature": 0.5, "temperature_interval": 4},
        "layers": [{}, {"attention": {"name": "short-conv", "bias": True}, "position": "none"}],
    },
    "shaw": {"position": {"name": "shaw", "max_distance": 5}, "attention": {**GROUPED, "softcap": 4.0}},
    "t5": {"position": {"name": "t5-bias", "n_buckets": 8, "max_distance": 20, "shared": False}},
    # Their frequencies change at 7 tokens, within the generated ones.
    "longrope": {
        "position": {
            "name": "rotary",
            "scaling": {"name": "longrope", "short": [1, 1.5, 2, 4], "long": [3], "original_context_length": 7},
        },
        "attention": GROUPED,
    },
    "dynamic": {
        "position": {"name": "rotary", "scaling": {"name": "dynamic", "factor": 3, "original_context_length": 7}},
        "attention": GROUPED,
    },
}
