"""Random models, exported for transformers with a family or with generated code, have the same logits and texts there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gptkit.core.errors import ExternalModelError
from gptkit.interop.formats.hugging_face.format import HuggingFaceFormat
from gptkit.model.gpt import GPT
from tests.support.programs import native
from tests.support.random_models import CONTEXT, named, random_models, varied

transformers = pytest.importorskip("transformers")

V = 257
LARGE = 1e3
"""Logits of models without norms may be larger; fp32 is too coarse for them."""
SHARE = 5
"""The slow tests export each fifth model."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "step"), [(0, SHARE), *(pytest.param(seed, 1, marks=pytest.mark.nightly) for seed in range(6))]
)
@torch.no_grad()
def test_random_models_have_the_same_logits_in_transformers(seed: int, step: int, tmp_path: Path) -> None:
    models = list(random_models(seed))[::step]
    n_exported = 0
    for index, (name, spec) in enumerate(models):
        with named(name, spec):
            model = varied(GPT(spec, V, seed=1), seed)
            ids_BT = torch.randint(V, (2, CONTEXT), generator=torch.Generator().manual_seed(seed))
            expected = model(ids_BT).logits
            assert expected is not None
            if not expected.abs().max() < LARGE:
                continue
            # Directories of one name share the modules of their code within a process.
            path = tmp_path / f"model-{index}"
            try:
                HuggingFaceFormat().write(native(model), path)
            except ExternalModelError as error:
                assert "do not fit" not in error.message
                assert error.hint
                continue
            n_exported += 1
            loaded = transformers.AutoModelForCausalLM.from_pretrained(
                path, trust_remote_code=True, attn_implementation="eager", dtype=torch.float32
            ).eval()
            scale = max(1.0, float(expected.abs().max()))
            torch.testing.assert_close(loaded(ids_BT).logits, expected, rtol=0, atol=1e-4 * scale)
            text = loaded.generate(ids_BT[:1, :4], max_new_tokens=3, do_sample=False, pad_token_id=0)
            assert text.tolist() == continued(model, ids_BT[:1, :4], 3).tolist()
    assert n_exported > (0.8 if step == 1 else 0.7) * len(models)  # a sample varies more


def continued(model: GPT, ids_BT: torch.Tensor, count: int) -> torch.Tensor:
    for _ in range(count):
        logits_BTV = model(ids_BT).logits
        assert logits_BTV is not None
        ids_BT = torch.cat((ids_BT, logits_BTV[:, -1:].argmax(-1)), dim=1)
    return ids_BT
