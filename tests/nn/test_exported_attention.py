"""Exported programs: the causal mask holds for few tokens, which are traced in another form than many."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gptkit.model.gpt import GPT
from gptkit.nn.attention.backends.sdpa import FEW_QUERIES


class _Logits(nn.Module):
    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_BT: Tensor) -> Tensor:
        logits: Tensor = self.model(ids_BT).logits
        return logits


@pytest.mark.parametrize("length", [2, FEW_QUERIES, FEW_QUERIES + 8])
@torch.no_grad()
def test_exported_model_keeps_the_causal_mask(length: int) -> None:
    layout = {"d_model": 16, "n_layers": 1, "context_length": 32, "position": "rotary", "attention": {"n_heads": 2}}
    function = _Logits(GPT(layout, 29, seed=0).eval())
    ids_BT = torch.randint(29, (2, length), generator=torch.Generator().manual_seed(0))
    program = torch.export.export(function, (ids_BT,), strict=False).module()
    torch.testing.assert_close(program(ids_BT), function(ids_BT), atol=1e-5, rtol=1e-5)
