"""Training by fused operations equals training by their definitions, for the architecture of every shipped preset.

In fp32 the loss is equal to 1e-5, and each gradient to 1e-5 of the largest one of its tensor. Where fp32 is too coarse for
this, both are compared with the definitions in fp64, and may be four times as far from them as the definitions in fp32.

Replaced by definitions: attention (`sdpa` and its blocks by `eager`), the loss of heads (by the cross-entropy of all
logits), and RMS normalization.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.components.head.modules import linear as linear_head
from gptkit.components.head.modules import multi_token as multi_token_head
from gptkit.model.gpt import GPT
from gptkit.nn.attention.backends.eager import EagerBackend
from gptkit.nn.attention.backends.sdpa import SdpaBackend
from gptkit.ops import rms_norm
from gptkit.ops.softcap import Softcap
from gptkit.presets.catalog import shipped
from tests.support.presets import V, marked, small_preset

ROUNDING = 0.05
"""Largest distance between bf16 gradients and those of fp32, as a share of their norm, beyond that of the definitions."""

NEGLIGIBLE = 1e-3
"""Share of the model's largest gradient to which tensors with smaller gradients are compared: sums that nearly cancel."""

QUICK = ("gpt2", "modern", "gemma2-2b")
PRESETS = marked((name for name in shipped() if name != "finetune"), QUICK)  # which takes its model from a run


def _cross_entropy(
    x_NE: Tensor,
    weight_VE: Tensor,
    targets_N: Tensor,
    bias_V: Tensor | None = None,
    *,
    scale: float = 1.0,
    softcap: Softcap | None = None,
    z_loss: float = 0.0,
    smoothing: float = 0.0,
    ignored: int = -100,
    part: None = None,
) -> Tensor:
    logits_NV = F.linear(x_NE, weight_VE, bias_V).float() * scale
    if softcap is not None:
        u_NV = (logits_NV + softcap.shift) / softcap.width
        logits_NV = softcap.cap * (u_NV.tanh() if softcap.form == "tanh" else 1 / (1 + (-u_NV).exp()))
    loss = F.cross_entropy(logits_NV, targets_N, ignore_index=ignored, label_smoothing=smoothing)
    return loss + z_loss * logits_NV.logsumexp(-1).square()[targets_N != ignored].mean()


def _rms_norm(x: Tensor, weight_D: Tensor | None, eps: float) -> Tensor:
    y = x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()
    return y if weight_D is None else y * weight_D


def _gradients(model: GPT, precision: torch.dtype) -> tuple[float, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(V, (2, 64), generator=generator)
    targets = ids.roll(-1, 1)
    targets[0, :5] = -100
    model.zero_grad()
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        loss = model(ids, targets).loss
    assert loss is not None
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def _distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    total = sum(float(grad.square().sum()) for grad in b.values())
    return math.sqrt(sum(float((a[name] - b[name]).square().sum()) for name in b) / total)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("preset", PRESETS)
def test_fused_training_equals_the_definitions(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_preset(preset).train()
    loss, grads = _gradients(model, torch.float32)
    loss_bf16, grads_bf16 = _gradients(model, torch.bfloat16)

    eager: Any = EagerBackend()
    monkeypatch.setattr(SdpaBackend, "attend", lambda self, *arguments: eager.attend(*arguments))
    for module in (linear_head, multi_token_head):
        if hasattr(module, "linear_cross_entropy"):
            monkeypatch.setattr(module, "linear_cross_entropy", _cross_entropy)
    monkeypatch.setattr(rms_norm._RMSNorm, "apply", _rms_norm)
    plain_loss, plain = _gradients(model, torch.float32)
    plain_loss_bf16, plain_bf16 = _gradients(model, torch.bfloat16)

    assert loss == pytest.approx(plain_loss, abs=1e-5)
    assert grads.keys() == plain.keys()
    largest = max(float(grad.abs().max()) for grad in plain.values())
    coarse: list[str] = []
    for name, grad in grads.items():
        # Relative to the largest gradient of the tensor.
        scale = max(float(plain[name].abs().max()), NEGLIGIBLE * largest)
        if float((grad - plain[name]).abs().max()) > 1e-5 * scale:
            coarse.append(name)
    assert loss_bf16 == pytest.approx(plain_loss_bf16, abs=0.02)
    assert _distance(grads_bf16, grads) < _distance(plain_bf16, plain) + ROUNDING
    if coarse:
        _, exact = _gradients(model.double(), torch.float64)
        for name in coarse:
            rounding = float((plain[name] - exact[name]).abs().max())
            assert float((grads[name] - exact[name]).abs().max()) <= 4 * rounding, name
