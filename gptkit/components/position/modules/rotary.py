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

__all__ = ["Prepared", "RotaryPosition"]

Angles = tuple[Tensor, Tensor]
"""Cosines and sines, each (T, R) or (B, 1, T, R)."""

Prepared = tuple[Tensor, Tensor, Tensor | None]
"""Cosines and sines, and factors of queries, (T, 1) or (B, 1, T, 1); None without a temperature."""


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

    def prepare(self, positions: Tensor) -> Prepared:
        factors = self._factors(positions) if self.spec.temperature else None
        if not self.by_length:
            return *self._angles(positions, self.frequencies(positions.device)), factors
        scaling = self.spec.scaling
        assert scaling is not None
        length_B = positions.amax(dim=-1).reshape(-1) + 1
        frequencies = scaling.at_length(self.spec.base, self.d_rotary, self.context, length_B)[:, None]
        return *self._angles(positions, frequencies), factors

    def _factors(self, positions: Tensor) -> Tensor:
        steps = torch.floor(positions.float() / self.spec.temperature_interval)
        # Positions of padding are negative, and matter nowhere.
        factors = (1 + self.spec.temperature * torch.log1p(steps.clamp(min=0)))[..., None]
        return factors[:, None] if positions.dim() == 2 else factors

    def frequencies(self, device: torch.device) -> Tensor:
        """Return radians per token, (R / 2,); computed on first use, since modules are built on the meta device."""
        if torch.compiler.is_compiling():
            # Part of the graph: what a first call stores would make the second one compile again.
            return self._compute_frequencies().to(device)
        if device not in self._frequencies:
            self._frequencies[device] = self._compute_frequencies().to(device)
        return self._frequencies[device]

    def _compute_frequencies(self) -> Tensor:
        scaling = self.spec.scaling
        if scaling is None:
            return RotaryScalingSpec.plain(self.spec.base, self.d_rotary)
        return scaling.frequencies(self.spec.base, self.d_rotary, self.context)

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
        cos, sin, factors = prepared
        q_turned, k_turned = self._turn(q_BHTD, cos, sin), self._turn(k_BKTD, cos, sin)
        return q_turned if factors is None else (q_turned * factors).to(q_turned.dtype), k_turned

    def scale_unrotated(self, q_BHTN: Tensor, prepared: Any) -> Tensor:
        factors = prepared[2]
        return q_BHTN if factors is None else (q_BHTN * factors).to(q_BHTN.dtype)

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
