"""Which dtypes a device computes in natively."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["has_bf16"]


def has_bf16(device: torch.device) -> bool:
    """Return whether the device supports bf16 matrix products natively, so that bf16 is faster than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    try:
        supported = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False
    # oneDNN also reports support if it converts; only these instructions are faster.
    instructions = ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "_is_arm_sve_supported")
    tests: list[Any] = [getattr(torch.cpu, name) for name in instructions if hasattr(torch.cpu, name)]
    return supported and (not tests or any(test() for test in tests))
