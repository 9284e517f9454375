"""Declarations of families: several model types, nested configurations, buffers, and reasons of rejection."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import gptkit
from gptkit.core.errors import ExternalModelError
from gptkit.interop.conversion import pair
from gptkit.interop.families.llama import LlamaFamily
from gptkit.interop.selection import choose_family
from gptkit.kinds.family import Rule
from gptkit.runs.drift import measure_drift
from gptkit.testing import checks_for, run_checks
from gptkit.testing.configurations import keys_read
from tests.support.gguf_models import DECODER, make_run
from tests.support.parity import distance, logits_of, make, random_ids

transformers = pytest.importorskip("transformers")


def test_language_model_of_a_multimodal_model_is_imported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2, "head_dim": 16}
    text = {**sizes, "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64, "sliding_window": 6}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Gemma3Config(
        text_config=text, vision_config={**vision, "image_size": 28, "patch_size": 14}, mm_tokens_per_image=4
    )
    external = transformers.Gemma3ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in external.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    external.save_pretrained(tmp_path / "external")
    run = gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")
    ids = torch.randint(3, 200, (2, 20))
    with torch.no_grad():
        expected = external(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        torch.testing.assert_close(run.model(ids).logits, expected, atol=3e-5, rtol=3e-5)
    assert measure_drift(tmp_path / "run", tmp_path / "external").first is None
    exported = gptkit.export_model(tmp_path / "run", tmp_path / "out")
    assert json.loads((exported / "config.json").read_text())["model_type"] == "gemma3_text"


OTHERS = {"image_token_id": 9, "vision_config": {"hidden_size": 8}}
MISTRAL3 = {**OTHERS, "spatial_merge_size": 2, "projector_hidden_act": "gelu", "vision_feature_layer": -1}
GEMMA = {**OTHERS, "audio_config": {"hidden_size": 8}, "boa_token_id": 5, "vision_soft_tokens_per_image": 280}
LFM3 = {**OTHERS, "vision_start_token_id": 7, "projector_hidden_size": 16, "projector_bias": True}
MULTIMODAL = [
    ("ministral3", "mistral3", "language_model.", "vision_tower.patch_conv.weight", MISTRAL3),
    ("mistral", "mistral3", "language_model.", "multi_modal_projector.norm.weight", MISTRAL3),
    ("qwen3_5", "qwen3_5", "model.language_model.", "model.visual.pos_embed.weight", OTHERS),
    ("gemma4", "gemma4", "model.language_model.", "model.vision_tower.patch_embedder.weight", GEMMA),
    ("gemma4_unified", "gemma4_unified", "model.language_model.", "model.embed_vision.pos_embedding", GEMMA),
    ("lfm3", "lfm3_vl", "model.language_model.", "model.vision_tower.embedding_norm.weight", LFM3),
    ("gemma3n", "gemma3n", "model.language_model.", "model.embed_audio.embedding.weight", GEMMA),
    ("qwen3_5_moe", "qwen3_5_moe", "model.language_model.", "mtp.fc.weight", OTHERS),
    ("llama4", "llama4", "language_model.", "vision_model.class_embedding", OTHERS),
    ("aria_text", "aria", "language_model.", "multi_modal_projector.query", {**OTHERS, "projector_patch_to_query_dict": {}}),
    ("emu3", "emu3", "model.text_model.", "model.vqmodel.encoder.weight", {"vq_config": {}, "vocabulary_map": {}}),
    ("cohere_compass", "cohere_compass", "model.language_model.", "model.visual.pos_embed.weight", OTHERS),
    ("dots3_note", "dots3_note", "model.language_model.", "model.visual.blocks.0.norm1.weight", OTHERS),
]


@pytest.mark.parametrize(("name", "model_type", "prefix", "other", "keys"), MULTIMODAL)
def test_text_config_selects_the_family(
    tmp_path: Path, name: str, model_type: str, prefix: str, other: str, keys: dict[str, Any]
) -> None:
    model = make(name, tmp_path / "text")
    text = json.loads((tmp_path / "text" / "config.json").read_text())
    (tmp_path / "whole").mkdir()
    tensors = load_file(tmp_path / "text" / "model.safetensors")
    own = "" if prefix == "language_model." else "model."
    renamed = {prefix + name.removeprefix(own) if name.startswith(own) else name: each for name, each in tensors.items()}
    save_file({**renamed, other: torch.zeros(3)}, tmp_path / "whole" / "model.safetensors")
    whole = {"model_type": model_type, "text_config": text, **keys}
    (tmp_path / "whole" / "config.json").write_text(json.dumps(whole))
    run = gptkit.import_model(tmp_path / "whole", tmp_path / "run", tokenizer="byte")
    ids = random_ids()
    with torch.no_grad():
        assert distance(run.model(ids).logits, logits_of(model, ids)) < 5e-5
    exported = gptkit.export_model(tmp_path / "run", tmp_path / "out")
    assert json.loads((exported / "config.json").read_text())["model_type"] == text["model_type"]


def test_gpt_sw3_is_gpt2(tmp_path: Path) -> None:
    model = make("gpt2", tmp_path / "external")
    file = tmp_path / "external" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_type": "gpt-sw3"}))
    run = gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")
    ids = random_ids()
    with torch.no_grad():
        assert distance(run.model(ids).logits, logits_of(model, ids)) < 5e-5


def test_language_model_of_phi4_multimodal_is_a_phi3(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 6, "num_key_value_heads": 2}
    vision = {"hidden_size": 24, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    audio = {"hidden_size": 16, "intermediate_size": 16, "num_blocks": 1, "num_attention_heads": 2}
    config = transformers.Phi4MultimodalConfig(
        vocab_size=300,
        **sizes,
        num_hidden_layers=3,
        max_position_embeddings=64,
        original_max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.5},
        pad_token_id=0,
        vision_config={**vision, "image_size": 28, "patch_size": 14, "image_token_id": 299},
        audio_config={**audio, "audio_token_id": 298, "nemo_conv_channels": 8, "input_size": 16},
    )
    external = transformers.Phi4MultimodalForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in external.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    external.save_pretrained(tmp_path / "external")
    run = gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")
    ids = random_ids()
    with torch.no_grad():
        assert distance(run.model(ids).logits, logits_of(external, ids)) < 5e-5
    exported = gptkit.export_model(tmp_path / "run", tmp_path / "out")
    assert json.loads((exported / "config.json").read_text())["model_type"] == "phi3"


@pytest.mark.parametrize("name", ["gemma4", "gemma3n"])
def test_keys_of_layers_that_share_them_are_skipped(tmp_path: Path, name: str) -> None:
    make(name, tmp_path / "external")
    file = tmp_path / "external" / "model.safetensors"
    stored = load_file(file)
    for part in ("k_proj", "v_proj", "k_norm"):
        stored[f"model.layers.6.self_attn.{part}.weight"] = torch.zeros(4, 4)
    save_file(stored, file)
    gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")
    stored["model.layers.0.self_attn.x_proj.weight"] = torch.zeros(4, 4)
    save_file(stored, file)
    with pytest.raises(ExternalModelError, match=r"layers\.0\.self_attn\.x_proj"):
        gptkit.import_model(tmp_path / "external", tmp_path / "other", tokenizer="byte")


def test_unknown_key_beside_text_config_is_rejected(tmp_path: Path) -> None:
    config = {"model_type": "gemma3", "text_config": {"hidden_size": 48}, "twist": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ExternalModelError, match="unknown keys: 'twist'"):
        gptkit.import_model(tmp_path, tmp_path / "run")


class Buffered(LlamaFamily):
    """A llama whose final norm has a buffer."""

    name: Literal["buffered"] = "buffered"  # type: ignore[assignment]
    model_type: ClassVar[str] = "buffered"

    def rules(self, model: Any) -> list[Rule]:
        return [Rule("final_norm.statistics", "model.norm.statistics"), *super().rules(model)]


def test_buffers_in_checkpoints_are_loaded() -> None:
    model = gptkit.GPT({**DECODER, "vocab_size": 30}, device="meta")
    assert isinstance(model.final_norm, nn.Module)
    model.final_norm.register_buffer("statistics", torch.zeros(3, device="meta"))
    model.final_norm.register_buffer("cached", torch.zeros(3, device="meta"), persistent=False)
    moves = {move.native: move.external for move in pair(Buffered(name="buffered"), model)}
    assert moves["final_norm.statistics"] == ("model.norm.statistics",)
    assert "final_norm.cached" not in moves
    with pytest.raises(ExternalModelError, match=r"has no rule for final_norm\.statistics"):
        pair(LlamaFamily(name="llama"), model)


def test_subclass_does_not_inherit_the_gguf_architecture(tmp_path: Path) -> None:
    from gptkit.interop.formats.gguf.model import architectures

    known = {family.component_name() for pairs in architectures().values() for _, family in pairs}
    assert {"llama", "qwen2", "qwen3", "gpt2", "gemma3", "gpt-oss"} <= known
    assert "buffered" not in known
    assert all(own.model_type == family.model_type for pairs in architectures().values() for own, family in pairs)


def test_rejection_by_a_family_is_reported_once(tmp_path: Path) -> None:
    model = gptkit.load(make_run(tmp_path / "run", {**DECODER, "vocab_size": 300})).spec.model
    with pytest.raises(ExternalModelError) as caught:
        choose_family(model, "deepseek-v3", only=True)
    assert caught.value.message.count("cannot express this model") == 1
    assert len(caught.value.message) < 300


def test_export_writes_every_key_that_the_family_reads() -> None:
    data = {**DECODER, "vocab_size": 300}
    model = gptkit.GPT(data, device="meta").spec
    _, config = choose_family(model, "llama", only=True)
    read = {key.path[0] for key in keys_read(LlamaFamily(name="llama"), config) if key.value is not None}
    assert {"attention_bias", "mlp_bias", "head_dim", "hidden_act", "tie_word_embeddings", "rope_theta"} <= read
    assert read <= {key for key, value in config.items() if value is not None} | {"rope_scaling"}
    assert config["rope_parameters"]["rope_type"] == "default"


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"position": {"name": "rotary", "fraction": 0.5}}, "partial_rotary_factor"),
        ({"feedforward": {"name": "gated", "d_hidden": 96, "bias": True}, "attention": {"window": 8}}, "mlp_bias|bias"),
    ],
)
def test_options_that_the_reference_ignores_are_not_exported(change: dict[str, Any], key: str) -> None:
    """transformers reads both keys into its configurations, and computes another model."""
    attention = {**DECODER["attention"], **change.get("attention", {})}
    model = gptkit.GPT({**DECODER, "vocab_size": 300, **change, "attention": attention}, device="meta").spec
    with pytest.raises(ExternalModelError, match=key):
        choose_family(model, "mistral", only=True)


def test_checks_against_the_reference_are_skipped_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: LlamaFamily) -> Any:
        raise ImportError(name="transformers")

    monkeypatch.setattr(LlamaFamily, "reference", missing)
    results = {result.check.name: result for result in run_checks(LlamaFamily(name="llama"))}
    skipped = {name for name, result in results.items() if result.outcome == "skipped"}
    assert {"equals-the-reference", "export-equals-the-reference", "leaves-nothing-to-defaults"} <= skipped
    assert results["config-comes-back"].outcome == results["layouts-are-inverse"].outcome == "passed"
    assert all("install transformers" in results[name].message for name in skipped)


def test_documented_checks_exist() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "families.md").read_text(encoding="utf-8")
    table = page.partition("| check | detects |")[2].partition("\n\n")[0]
    names = {name for row in table.splitlines() for name in re.findall(r"`([a-z-]+)`", row.partition(" | ")[0])}
    known = {check.name for check in checks_for("family")} - {check.name for check in checks_for("schedule")}
    assert len(names) > 8
    assert known - names == {"says-who-it-is"}
    assert names - {"--slow"} <= known


def test_dbrx_has_the_base_of_its_attention(tmp_path: Path) -> None:
    """Released files have the base in `attn_config` alone, where transformers would apply its default to positions."""
    make("dbrx", tmp_path / "external")
    file = tmp_path / "external" / "config.json"
    config = json.loads(file.read_text())
    del config["rope_parameters"]
    file.write_text(json.dumps(config))
    run = gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")
    assert run.model.spec.position.base == 5000.0
    file.write_text(json.dumps({**config, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}))
    with pytest.raises(ExternalModelError, match=r"rope_theta is the number 5000.0: rope_parameters has 10000.0"):
        gptkit.import_model(tmp_path / "external", tmp_path / "other", tokenizer="byte")
