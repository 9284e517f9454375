"""Runtime of `rotary`.

Shapes: B batch, H heads, T tokens, S keys, D head size, R rotated features (R ≤ D).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gptkit.kinds.context import BuildContext
from gptkit.kinds.rotary_scaling import RotaryScalingSpec
from gptkit.nn.position import Position

if TYPE_CHECKING:
    from gptkit.components.position.rotary import RotarySpec

__all__ = ["RotaryPosition"]

Angles = tuple[Tensor, Tensor]
"""Cosines and sines, each (T, R) or (B, 1, T, R)."""


class RotaryPosition(Position):
    """Runtime of `rotary`. Angles are computed in fp32 once per call; layers with equal specs share this module."""

    def __init__(self, spec: RotarySpec, context: BuildContext, d_head: int) -> None:
        super().__init__()
        self.spec = spec
        # Without the shared store: a module that refers to its siblings could not be copied alone.
        self.context = context.replace(shared={}, layer=None)
        self.d_rotary = spec.d_rotary(d_head)
        self.partial = self.d_rotary < d_head
        self.interleaved = spec.layout == "interleaved"
        self.by_length = spec.depends_on_length
        self.amplitude = 1.0 if spec.scaling is None else spec.scaling.amplitude(self.context)
        self._frequencies: dict[torch.device, Tensor] = {}

    def prepare(self, positions: Tensor) -> Angles:
        if not self.by_length:
            return self._angles(positions, self.frequencies(positions.device))
        scaling = self.spec.scaling
        assert scaling is not None
        length_B = positions.amax(dim=-1).reshape(-1) + 1
        return self._angles(positions, scaling.at_length(self.spec.base, self.d_rotary, self.context, length_B)[:, None])

    def frequencies(self, device: torch.device) -> Tensor:
        """Return radians per token, (R / 2,); computed on first use, since modules are built on the meta device."""
        if device not in self._frequencies:
            spec = self.spec
            if spec.scaling is None:
                made = RotaryScalingSpec.plain(spec.base, self.d_rotary)
            else:
                made = spec.scaling.frequencies(spec.base, self.d_rotary, self.context)
            self._frequencies[device] = made.to(device)
        return self._frequencies[device]

    def _angles(self, positions: Tensor, frequencies: Tensor) -> Angles:
        angles = positions[..., None].float() * frequencies
        if angles.dim() == 3:
            angles = angles[:, None]
        angles = angles.repeat_interleave(2, -1) if self.interleaved else torch.cat((angles, angles), -1)
        cos, sin = angles.cos(), -angles.sin() if self.spec.reverse else angles.sin()
        if self.amplitude != 1:
            cos, sin = cos * self.amplitude, sin * self.amplitude
        return cos, sin

    def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, prepared: Any) -> tuple[Tensor, Tensor]:
        return self._turn(q_BHTD, *prepared), self._turn(k_BKTD, *prepared)

    def _turn(self, x_BHTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x_BHTR, rest = (x_BHTD[..., : self.d_rotary], x_BHTD[..., self.d_rotary :]) if self.partial else (x_BHTD, None)
        cos, sin = cos.to(x_BHTD.dtype), sin.to(x_BHTD.dtype)
        if self.interleaved:
            a, b = x_BHTR[..., 0::2], x_BHTR[..., 1::2]
            turned = torch.stack((-b, a), dim=-1).flatten(-2)
        else:
            half = self.d_rotary // 2
            turned = torch.cat((-x_BHTR[..., half:], x_BHTR[..., :half]), dim=-1)
        out = x_BHTR * cos + turned * sin
        return out if rest is None else torch.cat((out, rest), dim=-1)
