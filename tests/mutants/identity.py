"""Layers with experts beside them, and experts that return their input, with one error each."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from gptkit.components.block.modules.shortcut_experts import ShortcutExperts
from gptkit.components.block.shortcut_experts import ShortcutExpertsSpec
from gptkit.components.feedforward.experts import ExpertsSpec
from gptkit.components.feedforward.modules.experts import Experts
from gptkit.nn.forward import Forward
from tests.mutants.mutant import ANYTHING, WithRuntime


class WrongShortcut(WithRuntime, ShortcutExpertsSpec):
    """Base of blocks with the runtime class `runtime_class`."""

    runtime_class: ClassVar[type[ShortcutExperts]]
    twin_class = ShortcutExpertsSpec


class AttentionsWithOneState(WrongShortcut):
    """Use one attention twice, with the states of its first call."""

    class Runtime(ShortcutExperts):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            second = self.attention[1]

            def again(module: Any, inputs: Any) -> None:
                forward._calls = {}

            self.attention[1] = self.attention[0]
            handle = self.attention[0].register_forward_pre_hook(again)
            try:
                return super().forward(x_BTE, forward)
            finally:
                handle.remove()
                self.attention[1] = second

    name: Literal["attentions-with-one-state"] = "attentions-with-one-state"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = ANYTHING


class ExpertsOfTheLastToken(WrongShortcut):
    """Add the experts of the last token to every token."""

    class Runtime(ShortcutExperts):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            h_BTE = self.feedforward_norm[0](x_BTE[:, -1:].expand_as(x_BTE))
            return super().forward(x_BTE, forward) + self.experts(h_BTE, forward)  # type: ignore[no-any-return]

    name: Literal["experts-of-the-last-token"] = "experts-of-the-last-token"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "no-future-leak"
    also = ANYTHING


class NeverUsesTheExperts(WrongShortcut):
    """Return what the layers compute without the experts."""

    class Runtime(ShortcutExperts):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            for index in range(2):
                x_BTE = x_BTE + self.attention[index](self.attention_norm[index](x_BTE), forward)
                x_BTE = x_BTE + self.feedforward[index](self.feedforward_norm[index](x_BTE), forward)
            return x_BTE

    name: Literal["never-uses-the-experts"] = "never-uses-the-experts"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "gradients"
    also = ANYTHING


class WrongIdentity(WithRuntime, ExpertsSpec):
    """Base of mixtures with experts that return their input, with the runtime class `runtime_class`."""

    n_experts: int = Field(3, description="Number of experts with weights.")
    identity_experts: int = Field(3, description="Number of experts that return their input.")
    runtime_class: ClassVar[type[Experts]]
    twin_class = ExpertsSpec


class ReturnsTheMeanOfTheText(WrongIdentity):
    """Return the mean of the tokens in place of the input."""

    class Runtime(Experts):
        def _routed(self, x_NE: Tensor, experts_NK: Tensor, weights_NK: Tensor, forward: Forward) -> Tensor:
            share_N1 = torch.where(experts_NK >= self.n_experts, weights_NK, 0).sum(dim=1, keepdim=True)
            others_NE = super()._routed(x_NE, experts_NK, weights_NK, forward)
            return others_NE + share_N1 * (x_NE.mean(dim=0) - x_NE)

    name: Literal["returns-the-mean-of-the-text"] = "returns-the-mean-of-the-text"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "position-wise"
    also = ANYTHING


class IdentityInFp32(WrongIdentity):
    """Return the sum in the dtype of the weights of a token's experts before rounding."""

    class Runtime(Experts):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, forward).to(torch.promote_types(x_BTE.dtype, torch.float32))

    name: Literal["identity-in-fp32"] = "identity-in-fp32"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "bf16-and-fp32"
    also = ANYTHING


class RouterWithoutGradient(WrongIdentity):
    """Weight the experts by constants."""

    class Runtime(Experts):
        def _routed(self, x_NE: Tensor, experts_NK: Tensor, weights_NK: Tensor, forward: Forward) -> Tensor:
            return super()._routed(x_NE, experts_NK, weights_NK.detach(), forward)

    name: Literal["router-without-gradient"] = "router-without-gradient"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "gradients"
    also = ANYTHING
