"""Files that store a tied head in addition to the embedding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import gptkit
from gptkit.core.errors import ExternalModelError
from tests.support.parity import distance, logits_of, make, random_ids

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")


def wrongly_tied(name: str, directory: Path) -> None:
    """Save a model with a head of its own, whose configuration ties it."""
    make(name, directory)
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "tie_word_embeddings": True}))


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "mixtral"])
def test_a_head_with_other_values_is_refused_since_transformers_does_not_tie_it(name: str, tmp_path: Path) -> None:
    wrongly_tied(name, tmp_path / "external")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "external")
    assert not torch.equal(model.get_output_embeddings().weight, model.get_input_embeddings().weight)
    with pytest.raises(ExternalModelError, match=r"has other values than .*tie_word_embeddings") as error:
        gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")
    assert "Set tie_word_embeddings to false" in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_head_with_the_values_of_the_embedding_is_tied(tmp_path: Path) -> None:
    wrongly_tied("llama", tmp_path / "external")
    file = tmp_path / "external" / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, file, metadata={"format": "pt"})
    model, ids = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "external").eval(), random_ids()
    run = gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")
    with torch.no_grad():
        assert distance(run.model(ids).logits, logits_of(model, ids)) < 5e-5
