"""`rotary` relative positions.

Shapes: B batch, H heads, T tokens, S keys, D head size, R rotated features (R ≤ D).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from gptkit.core.component import optional_component
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.kinds.rotary_scaling import RotaryScalingSpec
from gptkit.nn.position import Position

__all__ = ["RotaryPosition", "RotarySpec"]

Angles = tuple[Tensor, Tensor]
"""Cosines and sines, each (T, R) or (B, 1, T, R)."""


class RotarySpec(PositionSpec):
    """Rotary position embedding (RoPE): queries and keys turn by an angle that grows with their position.

    Formula:
        θ_i = base^(-2i / d_rotary)
        (a, b) ↦ (a cos tθ_i - b sin tθ_i, a sin tθ_i + b cos tθ_i) for every pair of features (a, b)
        half: features i and i + d_rotary/2 are a pair; interleaved: features 2i and 2i + 1 are
    Shapes:
        q (B, n_heads, T, d_head), k (B, n_kv_heads, S, d_head) -> the same
    Paper:
        https://arxiv.org/abs/2104.09864
    """

    name: Literal["rotary"] = "rotary"
    uses: ClassVar[frozenset[str]] = frozenset({"rotate"})

    base: float = Field(10000.0, gt=1, description="The slowest pair turns about once in 2π · base tokens.")
    layout: Literal["half", "interleaved"] = Field("half", description="Which two features of a head make a pair.")
    fraction: float = Field(1.0, gt=0, le=1, description="Share of each head's features that turn; the first ones.")
    scaling: RotaryScalingSpec | None = optional_component(description="Changes the frequencies, for longer texts.")

    @property
    def depends_on_length(self) -> bool:
        return self.scaling is not None and self.scaling.depends_on_length

    def changes_between(self, old: int, new: int, context: BuildContext) -> bool:
        return self.scaling is not None and self.scaling.changes_between(old, new, context)

    def d_rotary(self, d_head: int) -> int:
        """Features of a head of `d_head` that turn."""
        return int(d_head * self.fraction)

    def head_problems(self, heads: HeadShape) -> Iterator[str]:
        d_rotary = self.d_rotary(heads.d_head)
        if d_rotary % 2 or d_rotary == 0:
            share = "" if self.fraction == 1 else f"{self.fraction:g} of "
            yield (
                f"features turn in pairs, but {share}the head size {heads.d_head} gives {d_rotary}; "
                "choose n_heads, d_head or fraction so that it is even"
            )
        elif self.scaling is not None:
            yield from self.scaling.pair_problems(d_rotary)

    def build(self, context: BuildContext, *, heads: HeadShape) -> RotaryPosition:
        return context.share(("rotary", self, heads.d_head), lambda: RotaryPosition(self, context, heads.d_head))

    def describe(self) -> str:
        parts = [f"rotary base {self.base:g}"]
        if self.fraction != 1:
            parts.append(f"{self.fraction:g} of each head")
        if self.layout != "half":
            parts.append(self.layout)
        if self.scaling is not None:
            parts.append(f"{self.scaling.name} scaling")
        return ", ".join(parts)


class RotaryPosition(Position):
    """Runtime of `rotary`. Angles are computed in fp32 once a call; layers with equal specs share this module."""

    def __init__(self, spec: RotarySpec, context: BuildContext, d_head: int) -> None:
        super().__init__()
        self.spec = spec
        # Without the shared store: a module that holds its siblings could not be copied by itself.
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
        """(R / 2,) radians a token. Made on first use: nothing to lose when a model is built without memory."""
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
        cos, sin = angles.cos(), angles.sin()
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
