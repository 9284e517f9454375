"""Declarations of families: several model types, nested configurations, buffers, and reasons of rejection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from interop.gguf_models import DECODER, make_run
from torch import nn

import gptkit
from gptkit.core.errors import ExternalModelError
from gptkit.interop.conversion import pair
from gptkit.interop.families.llama import LlamaFamily
from gptkit.interop.selection import choose_family
from gptkit.kinds.family import Rule
from gptkit.runs.drift import measure_drift

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


def test_unknown_key_beside_text_config_is_rejected(tmp_path: Path) -> None:
    config = {"model_type": "gemma3", "text_config": {"hidden_size": 48}, "twist": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ExternalModelError, match="not understood: 'twist'"):
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

    known = {family.component_name() for _, family in architectures().values()}
    assert known == {"llama", "qwen2", "qwen3", "gpt2"}
    assert Buffered(name="buffered").gguf().model_type != Buffered.model_type


def test_rejection_by_a_family_is_reported_once(tmp_path: Path) -> None:
    model = gptkit.load(make_run(tmp_path / "run", {**DECODER, "vocab_size": 300})).spec.model
    with pytest.raises(ExternalModelError) as caught:
        choose_family(model, "deepseek-v3", only=True)
    assert caught.value.message.count("cannot express this model") == 1
    assert len(caught.value.message) < 300
