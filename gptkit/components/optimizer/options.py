"""Types of options that several optimizers have, with their descriptions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

__all__ = ["Beta", "Cautious", "Decay"]

Beta = Annotated[float, Field(ge=0, lt=1)]
"""Decay rate of a moving average."""

Decay = Annotated[
    Literal["matrices", "all"],
    Field(
        description="Parameters with weight decay: tensors of two or more dimensions, or all (norm weights and biases too)."
    ),
]
"""Where weight decay is applied."""

Cautious = Annotated[bool, Field(description="Apply weight decay only to entries that the update moves towards zero.")]
"""Cautious weight decay."""
