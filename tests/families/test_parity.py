"""Every family against transformers: imported, exported, and the same logits both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families.tiny_models import MODELS

import gptkit
from gptkit.errors import GptkitError

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

N_TOKENS = 40
TOLERANCE = 1e-4


def kernel(name: str) -> str:
    # The eager path of Falcon with ALiBi adds the bias twice; that of others is the one that does all they have.
    return "sdpa" if name == "falcon-rw" else "eager"


def make(name: str, folder: Path) -> Any:
    """A tiny model with every weight random, norms and biases too, saved to a folder."""
    torch.manual_seed(0)
    family, options = MODELS[name]
    kind = getattr(transformers, f"{family}Config")
    model = transformers.AutoModelForCausalLM.from_config(kind(**options), attn_implementation=kernel(name))
    with torch.no_grad():
        # What selects experts in some families is no parameter there.
        more = [buffer for name, buffer in model.named_buffers() if "correction_bias" in name]
        for parameter in [*model.parameters(), *more]:
            parameter.add_(torch.randn_like(parameter) * 0.15)
    model.eval().save_pretrained(folder)
    return model


def some_ids() -> torch.Tensor:
    return torch.randint(3, 200, (2, N_TOKENS), generator=torch.Generator().manual_seed(1))


def logits_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids, use_cache=False).logits


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("name", MODELS)
def test_a_family_comes_and_goes(name: str, tmp_path: Path) -> None:
    theirs = make(name, tmp_path / "foreign")
    ids = some_ids()
    expected = logits_of(theirs, ids)
    run = gptkit.import_model(tmp_path / "foreign", tmp_path / "run", tokenizer="byte")
    with torch.no_grad():
        assert distance(run.model(ids).logits, expected) < TOLERANCE
        # A prompt, then a token at a time, over the edge of every window.
        cache = run.model.new_cache(2)
        pieces = [run.model(ids[:, :5], cache=cache).logits]
        pieces += [run.model(ids[:, at : at + 1], cache=cache).logits for at in range(5, N_TOKENS)]
        by_length = any(layer.position.depends_on_length for layer in run.model.spec.layer_specs())
        if not by_length:
            assert distance(torch.cat(pieces, 1), expected) < TOLERANCE
        assert distance(pieces[-1][:, -1], expected[:, -1]) < TOLERANCE

    gptkit.export_model(tmp_path / "run", tmp_path / "exported")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "exported", attn_implementation=kernel(name)).eval()
    assert type(again) is type(theirs)
    assert distance(logits_of(again, ids), expected) < 1e-6


@pytest.mark.parametrize("name", MODELS)
def test_what_is_not_understood_is_refused(name: str, tmp_path: Path) -> None:
    make(name, tmp_path / "foreign")
    file = tmp_path / "foreign" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "attention_twist": 0.5}))
    with pytest.raises(GptkitError, match="'attention_twist'"):
        gptkit.import_model(tmp_path / "foreign", tmp_path / "run", tokenizer="byte")
    assert not (tmp_path / "run").exists()
    file.write_text(json.dumps(config))
    weights = tmp_path / "foreign" / "model.safetensors"
    _drop_a_tensor(weights)
    with pytest.raises(GptkitError, match=r"tensors are missing: .*\.1\."):
        gptkit.import_model(tmp_path / "foreign", tmp_path / "run", tokenizer="byte")


def _drop_a_tensor(file: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    victim = next(name for name in sorted(tensors) if ".1." in name)
    del tensors[victim]
    save_file(tensors, file, metadata={"format": "pt"})
