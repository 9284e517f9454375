"""Inkling: types of layers, experts, rows without a logit, and the keys of released files."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import gptkit
from gptkit.core.errors import ExternalModelError, GptkitError
from gptkit.interop.conversion import families, read_model
from tests.support.parity import distance, logits_of, random_ids
from tests.support.tiny_models import INKLING, VOCAB

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")
N_IDS = VOCAB - 5


def saved(directory: Path, **options: Any) -> Any:
    """Return a model of transformers with random weights, which is saved in the directory."""
    torch.manual_seed(1)
    config = transformers.InklingTextConfig(**{**INKLING, **options})
    model = transformers.InklingForCausalLM._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.add_(torch.randn_like(tensor) * 0.2)
    with redirect_stderr(io.StringIO()):
        model.save_pretrained(directory)
    return model


@torch.no_grad()
def test_every_token_has_the_shared_experts(tmp_path: Path) -> None:
    model = saved(tmp_path / "external", route_scale=3.0)
    run = gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")
    router = run.model.blocks[1].feedforward.router
    chosen: list[Any] = []
    router.register_forward_hook(lambda module, args, result: chosen.append(result))
    ids = random_ids()
    assert distance(run.model(ids).logits, logits_of(model, ids)) < 1e-5
    experts, weights = chosen[0]
    assert set(map(tuple, experts[:, -2:].tolist())) == {(5, 6)}
    torch.testing.assert_close(weights.sum(dim=1), torch.full((len(weights),), 3.0))


@torch.no_grad()
def test_rows_without_a_logit_are_not_read(tmp_path: Path) -> None:
    model = saved(tmp_path / "external", unpadded_vocab_size=N_IDS)
    run = gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")
    assert run.model.vocab_size == N_IDS
    ids = random_ids()
    assert distance(run.model(ids).logits, logits_of(model, ids)) < 1e-5
    exported = gptkit.export_model(tmp_path / "run", tmp_path / "exported")
    config = json.loads((exported / "config.json").read_text())
    assert config["vocab_size"] == config["unpadded_vocab_size"] == N_IDS
    again = transformers.InklingForCausalLM.from_pretrained(exported, attn_implementation="eager").eval()
    assert distance(logits_of(again, ids), logits_of(model, ids)) < 1e-6


def test_missing_rows_and_other_columns_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "external", unpadded_vocab_size=N_IDS)
    file = tmp_path / "external" / "model.safetensors"
    tensors = load_file(file)
    table = tensors["model.embed_tokens.weight"]
    for damaged in (table[: N_IDS - 1], table[:, :-1], table.flatten()):
        save_file({**tensors, "model.embed_tokens.weight": damaged.clone()}, file, metadata={"format": "pt"})
        with pytest.raises(GptkitError, match=r"model.embed_tokens.weight is \[.*the configuration requires"):
            gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")


def read(**changes: Any) -> Any:
    family = next(each for each in families().values() if each.model_type == "inkling_text")
    config = transformers.InklingTextConfig(**INKLING).to_dict()
    return read_model(family, {**config, "architectures": [family.architecture], **changes})


def test_types_of_layers_have_their_heads_window_and_position() -> None:
    layers = read(log_scaling_n_floor=30).layer_specs()
    assert [layer.attention.window for layer in layers] == [6, None, 6]
    assert [(layer.attention.n_heads, layer.attention.kv_heads, layer.attention.d_head) for layer in layers][:2] == [
        (6, 3, 8),
        (6, 2, 12),
    ]
    assert [layer.attention.relative_extent for layer in layers] == [6, 9, 6]
    assert [layer.attention.scale for layer in layers] == [1 / 8, 1 / 12, 1 / 8]
    assert [layer.position.name for layer in layers] == ["none", "query-temperature", "none"]


def test_layers_without_types_are_those_of_transformers() -> None:
    for keys in ({}, {"local_layer_ids": [1, 2, 4]}, {"dense_mlp_idx": 3}):
        options = {**INKLING, "num_hidden_layers": 8}
        options = {key: value for key, value in options.items() if key not in ("layer_types", "mlp_layer_types")}
        config = transformers.InklingTextConfig(**options, **keys)
        own = read(num_hidden_layers=8, layer_types=None, mlp_layer_types=None, **keys).layer_specs()
        sliding = [each == "hybrid_sliding" for each in config.layer_types]
        assert [layer.attention.window is not None for layer in own] == sliding
        assert [layer.feedforward.name == "gated" for layer in own] == [each == "dense" for each in config.mlp_layer_types]


def test_widths_of_released_files_are_read_as_transformers_reads_them() -> None:
    keys = {"intermediate_size": 24, "dense_intermediate_size": 80}
    config = transformers.InklingTextConfig(**{**INKLING, **keys})
    layers = read(**keys).layer_specs()
    assert layers[0].feedforward.d_hidden == config.intermediate_size == 80
    assert layers[1].feedforward.expert.d_hidden == config.moe_intermediate_size == 24


def test_other_names_of_keys_are_read() -> None:
    names = {"sconv_kernel_size": "conv_kernel_size", "sliding_window": "sliding_window_size"}
    names |= {"num_local_experts": "n_routed_experts", "embedding_multiplier": "logits_mup_width_multiplier"}
    names |= {"model_max_length": "max_position_embeddings"}
    values = {"sconv_kernel_size": 2, "sliding_window": 5, "num_local_experts": 7, "embedding_multiplier": 4.0}
    values |= {"model_max_length": 48}
    assert read(**values, **dict.fromkeys(names.values())) == read(**{names[key]: each for key, each in values.items()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_shared_experts": 0}, "n_shared_experts is the number 0: transformers requires one"),
        ({"shared_expert_sink": False}, "shared_expert_sink is .*false: transformers normalizes"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is .*true: transformers does not tie"),
        ({"unpadded_vocab_size": 0}, "unpadded_vocab_size is the number 0"),
        ({"unpadded_vocab_size": "all"}, "unpadded_vocab_size is the text 'all'"),
        ({"logits_mup_width_multiplier": 0}, "logits_mup_width_multiplier is the number 0"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types is .*it should name hybrid or hybrid_sliding"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping is the number 30.0: transformers does not read it"),
        ({"use_sconv": False}, "use_sconv is .*false: transformers does not read it"),
        ({"conv_kernel_size": 3, "sconv_kernel_size": 4}, "two names of one setting"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_other_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ExternalModelError, match=message):
        read(**changes)
