"""Training in 8-bit floating point: the projections of a model's blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gptkit.core.errors import TrainingError
from gptkit.model.gpt import GPT
from gptkit.ops.fp8_linear import ALIGNED, fp8_linear, has_fp8

__all__ = ["compute_in_fp8", "leave_fp8"]


class _Fp8Linear(nn.Linear):
    """Projection that is computed in fp8 in training, and as usual in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        return fp8_linear(x, self.weight, self.bias) if self.training else super().forward(x)


def compute_in_fp8(model: nn.Module, device: torch.device) -> int:
    """Compute the projections of the blocks in fp8 while the model is in training mode.

    Embedding and head stay in bf16, since their errors reach the loss directly; so do stacked experts, projections of other
    classes than nn.Linear, and those whose sizes are not multiples of 16.

    Args:
        model: the model; its weights and their names stay as they are.
        device: its device.

    Returns:
        The number of these projections.

    Raises:
        TrainingError: the device has no products in fp8, or the model no such projections.
    """
    if not has_fp8(device):
        raise TrainingError(
            f"training.precision is 'fp8', which torch {torch.__version__} does not compute on {_named(device)}",
            hint="Set training.precision to bf16. GPUs from NVIDIA's Ada and Hopper generations on have fp8.",
        )
    blocks = model.blocks if isinstance(model, GPT) else model
    count = 0
    for module in blocks.modules():
        # Exactly this class: others compute something else.
        if type(module) is nn.Linear and not any(size % ALIGNED for size in module.weight.shape):
            module.__class__ = _Fp8Linear
            count += 1
    if not count:
        raise TrainingError(
            f"training.precision is 'fp8', but the blocks have no projection whose sizes are multiples of {ALIGNED}",
            hint=f"Choose sizes that are multiples of {ALIGNED} (d_model, heads, hidden features), or set "
            "training.precision to bf16.",
        )
    return count


def leave_fp8(model: nn.Module) -> None:
    """Undo `compute_in_fp8`."""
    modules: list[nn.Module] = [module for module in model.modules() if type(module) is _Fp8Linear]
    for module in modules:
        module.__class__ = nn.Linear


def _named(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"device {device.type!r}"
