"""Runtime part of callback `norms`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gptkit.kinds.callback import Callback, Training
from gptkit.nn.tensor_parallel import tensor_shards, total_norm

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from gptkit.components.callback.norms import NormsSpec

__all__ = ["Norms"]


class Norms(Callback):
    """Runtime part of `NormsSpec`."""

    def __init__(self, spec: NormsSpec) -> None:
        self.spec = spec
        self._modules: dict[str, nn.Module] = {}
        self._divided: set[int] = set()
        self._add: Callable[[Tensor], Tensor] | None = None
        self._hooks: list[RemovableHandle] = []
        self._squares: dict[str, list[Tensor]] = {}
        self._measured: dict[str, Tensor | float] = {}

    def setup(self, training: Training) -> None:
        self._modules = dict(_parts(training.model))
        shards = tensor_shards(training.model)
        self._divided = {id(each) for name, each in training.model.named_parameters() if name in shards}
        self._add = next((shard.group.add for shard in shards.values()), None)

    def on_step_start(self, step: int) -> None:
        self._remove_hooks()
        if not self._due(step):
            return
        self._measured = {}
        self._squares = {}
        if self.spec.activations:
            # Only in the steps that are measured, so that the others run as without the callback.
            self._hooks = [module.register_forward_hook(self._observe(name)) for name, module in self._modules.items()]

    @torch.no_grad()
    def on_gradients(self, step: int) -> None:
        self._remove_hooks()
        if not self._due(step):
            return
        for name, module in self._modules.items():
            parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
            if self.spec.gradients and parameters:
                gradients = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
                self._measured[f"gradient_norm/{name}"] = self._norm(gradients)
            if self.spec.weights and parameters:
                self._measured[f"weight_norm/{name}"] = self._norm([(parameter, parameter) for parameter in parameters])
        for name, squares in self._squares.items():
            self._measured[f"activation_rms/{name}"] = torch.stack(squares).mean().sqrt()

    def measure(self, step: int) -> Mapping[str, float]:
        measured, self._measured = self._measured, {}
        return {name: float(value) for name, value in measured.items()}

    def state_dict(self) -> dict[str, Any]:
        return {name: float(value) for name, value in self._measured.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._measured = dict(state)

    def on_end(self, step: int, error: BaseException | None) -> None:
        self._remove_hooks()

    def _due(self, step: int) -> bool:
        """Whether the step after `step` steps is measured; the last of every `every`, which lines of metrics follow."""
        return (step + 1) % self.spec.every == 0

    def _observe(self, name: str) -> Any:
        def observe(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and module.training:
                self._squares.setdefault(name, []).append(output.detach().float().square().mean())

        return observe

    def _norm(self, tensors: Iterable[tuple[nn.Parameter, Tensor]]) -> Tensor:
        """Return the norm over tensors of parameters, which may be sharded or divided."""
        pairs = [(id(parameter) in self._divided, tensor) for parameter, tensor in tensors]
        return total_norm([each for part, each in pairs if not part], [each for part, each in pairs if part], self._add)

    def _remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


def _parts(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the measured modules by name: the children of the model, and the layers in place of their list."""
    parts: list[tuple[str, nn.Module]] = []
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleList):
            parts += [(f"{name}.{index}", layer) for index, layer in enumerate(child)]
        else:
            parts.append((name, child))
    return parts
