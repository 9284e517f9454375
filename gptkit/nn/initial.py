"""Kind `initializer`, and how a component says how its tensors start.

A module may have a method ``initial() -> dict[str, Initial]`` that maps names of its parameters (dotted for those of
its children) to how they start. An outer module's word counts more than an inner one's. Parameters that nobody speaks
for start as torch's own module of that type would suggest: linear weights `"weight"`, embeddings `"embedding"`, biases
`"zeros"`, norm weights `"ones"`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Initial", "Role"]


Role = Literal["weight", "output", "embedding", "zeros", "ones"]
"""`weight` a projection; `output` a projection that writes to the residual stream; `embedding` a table of vectors."""


Initial = Role | Callable[[torch.Size, torch.Generator], Tensor]
"""A role, which the model's initializer turns into numbers, or a function of shape and generator that makes them."""
