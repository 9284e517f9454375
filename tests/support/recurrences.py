"""What the tests of recurrent attentions share: properties that all of them have.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gptkit.model.gpt import GPT

__all__ = ["RECURRENT", "Recurrent", "V", "check_equal_with_gradients", "check_reset_state", "draw", "ids"]

V = 31


@dataclass(frozen=True)
class Recurrent:
    """Models of a recurrent attention, with sizes chosen to expose errors.

    Args:
        attention: the component.
        n_state: numbers in the state of a layer and row.
        n_layers: number of layers.
        dtypes: those of the tensors of a layer's state in a bf16 model.
        n_tokens: length of a text with several chunks or spans.
    """

    attention: dict[str, Any]
    n_state: int
    n_layers: int = 2
    dtypes: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float32)
    n_tokens: int = 150

    @property
    def layout(self) -> dict[str, Any]:
        """The model without the attention."""
        return {"d_model": 24, "n_layers": self.n_layers, "context_length": 400, "position": "none"}

    @property
    def spec(self) -> dict[str, Any]:
        """The model."""
        return {**self.layout, "attention": self.attention}

    def make(self, **fields: Any) -> GPT:
        """Return a model of random weights with further fields of the attention."""
        model = GPT({**self.layout, "attention": {**self.attention, **fields}}, V)
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
        return model.eval()


RECURRENT = {
    "mamba1": Recurrent(
        {"name": "mamba1", "d_inner": 20, "d_state": 5, "step_rank": 3},
        n_state=3 * 20 + 20 * 5,
        n_tokens=320,  # more than the span of tokens whose states are kept
    ),
    "mamba1-heads": Recurrent(
        {"name": "mamba1", "d_inner": 40, "n_heads": 2, "d_state": 5, "step_rank": 3}, n_state=3 * 40 + 40 * 5
    ),
    "mamba2": Recurrent(
        {"name": "mamba2", "n_heads": 4, "d_head": 12, "n_groups": 2, "d_state": 5},
        n_state=3 * (48 + 10 + 10) + 4 * 12 * 5,
    ),
    "rg-lru": Recurrent({"name": "rg-lru", "d_inner": 20, "n_heads": 2}, n_state=3 * 20 + 20),
    "rwkv4": Recurrent({"name": "rwkv4", "d_inner": 20}, n_state=24 + 3 * 20, dtypes=(torch.bfloat16, *[torch.float32] * 3)),
    "gated-delta": Recurrent(
        {"name": "gated-delta", "n_heads": 2, "n_value_heads": 4, "d_key": 6, "d_value": 10, "conv_width": 4},
        n_state=3 * (12 + 12 + 40) + 4 * 6 * 10,
    ),
    "kimi-delta": Recurrent(
        {"name": "kimi-delta", "n_heads": 3, "d_key": 6, "d_value": 10, "decay_rank": 4, "gate_rank": 4},
        n_state=3 * 3 * (6 + 6 + 10) + 3 * 6 * 10,
    ),
    "lightning": Recurrent(
        {"name": "lightning", "n_heads": 3, "d_head": 10}, n_state=3 * 10 * 10, n_layers=3, dtypes=(torch.float32,)
    ),
}
"""By the name of the attention, and what it has."""


def ids(rows: int, length: int, seed: int = 0) -> Tensor:
    """Return random texts (rows, length)."""
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return random fp64 numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


Rule = Callable[..., tuple[Tensor, Tensor]]
"""A recurrence: from tensors of the tokens, and a state, the outputs and the next state."""


def check_equal_with_gradients(
    actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], inputs: Sequence[Tensor]
) -> None:
    """Outputs, states, and the gradients of all inputs are equal."""
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other)
    gradients, wanted = (torch.autograd.grad(out.square().sum() + state.sum(), inputs) for out, state in (actual, expected))
    for gradient, wanted_gradient in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, wanted_gradient)


def check_reset_state(rule: Rule, tokens: Sequence[Tensor], state: Tensor, border: int, *, dim: int) -> None:
    """A new document in a row starts from a state of zeros.

    Args:
        rule: takes `tokens` and the state, and the keywords `segments_BT` and `chunk`.
        tokens: tensors with 11 tokens along a dimension.
        state: the state before the row.
        border: where the second document begins.
        dim: the dimension of the tokens.
    """
    segments_BT = (torch.arange(11) >= border).long().expand(2, -1)
    out, after = rule(*tokens, state, segments_BT=segments_BT, chunk=4)
    first, _ = rule(*(x.narrow(dim, 0, border) for x in tokens), state)
    second, wanted = rule(*(x.narrow(dim, border, 11 - border) for x in tokens), torch.zeros_like(state))
    torch.testing.assert_close(out, torch.cat((first, second), dim=dim))
    torch.testing.assert_close(after, wanted)
