"""Feed-forwards of many experts at once, with the experts' weights stacked in one tensor.

Shapes: M rows (visits of tokens to experts) sorted by expert, X experts, E model width, I inputs, O outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gptkit.nn.feedforward import FeedForward
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.nn.tensor_parallel import TensorParallel
from gptkit.ops.grouped import Groups, grouped_linear

__all__ = ["StackedFeedForward", "StackedLinear", "StackedModules"]


class StackedFeedForward(TensorParallel, ABC):
    """The runtime part of a feed-forward as the experts of a mixture: `FeedForwardSpec.build_stacked` returns it."""

    @abstractmethod
    def forward(self, x_ME: Tensor, groups: Groups, forward: Forward) -> Tensor:
        """Apply its expert to each row, (M, E) to (M, E). Rows that belong to no expert are arbitrary, but finite.

        No shape and no control flow may depend on the number of rows of an expert, so that `torch.compile` needs no graph
        break and the host does not wait for the device. Use `StackedLinear` for projections; elementwise operations need
        no change.

        Args:
            groups: the expert of each row.
        """


class StackedLinear(nn.Module):
    """Linear projections of X experts: `weight` (X, O, I) and `bias` (X, O), each slice as `nn.Linear` has it."""

    def __init__(self, n_experts: int, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.n_experts = n_experts
        self.in_features = in_features
        self.out_features = out_features
        self.weight = nn.Parameter(torch.empty(n_experts, out_features, in_features))
        self.bias = nn.Parameter(torch.empty(n_experts, out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as `nn.Linear` does; a model's initializer replaces the values."""
        bound = self.in_features**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def initial(self) -> dict[str, Initial]:
        return {"weight": "weight"}

    def forward(self, x_MI: Tensor, groups: Groups) -> Tensor:
        """Map (M, I) to (M, O)."""
        return grouped_linear(x_MI, self.weight, self.bias, groups)

    def extra_repr(self) -> str:
        return f"{self.n_experts} × {self.in_features} → {self.out_features}, bias={self.bias is not None}"


class StackedModules(StackedFeedForward):
    """Experts as separate modules, for feed-forwards without a stacked form.

    On the CPU each module processes its own rows. On other devices, and when compiled, each processes as many rows as there
    are tokens (no expert can have more), and the results of other experts' rows are discarded: the shapes are static, but
    the arithmetic is X / K times as much. Auxiliary losses that such a module adds include these extra rows.
    """

    def __init__(self, modules: Iterable[FeedForward]) -> None:
        super().__init__()
        self.each = nn.ModuleList(modules)

    def forward(self, x_ME: Tensor, groups: Groups, forward: Forward) -> Tensor:
        if x_ME.device.type in ("cpu", "meta") and not torch.compiler.is_compiling():
            return self._by_slices(x_ME, groups, forward)
        return self._by_tokens(x_ME, groups, forward)

    def _by_slices(self, x_ME: Tensor, groups: Groups, forward: Forward) -> Tensor:
        n_rows, n_experts = x_ME.shape[0], len(self.each)
        # On the meta device the distribution is unknown; an even one takes the same arithmetic.
        even = [n_rows * (index + 1) // n_experts for index in range(n_experts)]
        ends: list[int] = even if x_ME.is_meta else groups.ends_X.tolist()
        slices = zip(self.each, [0, *ends], ends, strict=False)
        outputs = [module(x_ME[None, first:end], forward)[0] for module, first, end in slices if end > first]
        return torch.cat([*outputs, torch.zeros_like(x_ME[ends[-1] :])])

    def _by_tokens(self, x_ME: Tensor, groups: Groups, forward: Forward) -> Tensor:
        n_rows = x_ME.shape[0]
        n_tokens = groups.n_tokens
        starts_X = torch.cat((groups.ends_X.new_zeros(1), groups.ends_X[:-1]))
        rows_XN = (starts_X[:, None] + torch.arange(n_tokens, device=x_ME.device)).clamp(max=n_rows - 1)
        outputs = [module(x_ME[rows_N][None], forward)[0] for module, rows_N in zip(self.each, rows_XN, strict=True)]
        rank_M = torch.arange(n_rows, device=x_ME.device) - starts_X[groups.expert_M]
        if groups.outside:
            rank_M = rank_M.clamp(max=n_tokens - 1)
        return groups.within(torch.cat(outputs)[groups.expert_M * n_tokens + rank_M])
