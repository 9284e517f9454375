"""Calibration of a precision: each block's matrices are quantized for the inputs that they have on a text.

The blocks follow one another, each with the inputs that the quantized ones before it compute, so memory is needed for the
second moments of one block's inputs at a time. A precision's `calibrate` does the rest.

Shapes: N windows of T tokens, B windows of a batch, E model width, X experts, M rows of inputs, O rows, I columns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.core.errors import GptkitError
from gptkit.kinds.precision import PrecisionSpec
from gptkit.model.gpt import GPT
from gptkit.model.packing import Slot, slots
from gptkit.nn.forward import Forward
from gptkit.nn.linear import TransformedLinear
from gptkit.nn.stacked import StackedLinear
from gptkit.ops.grouped import expert_slices, grouped_linear

__all__ = ["Calibration", "calibrate"]

BATCH = 2048
"""Number of tokens that go through a block at once."""

ENOUGH = 0.5
"""Number of inputs that a matrix must have had to be calibrated, as a share of its columns."""

OUTSIDE = "outside of the blocks"


@dataclass(frozen=True)
class Calibration:
    """The result of a calibration.

    Attributes:
        precision: the precision.
        tokens: number of tokens of the text that was used.
        stored: the tensors of each calibrated matrix, by the name of its parameter.
        rounded: the other matrices, which are rounded to nearest, each with the reason.
    """

    precision: PrecisionSpec
    tokens: int
    stored: Mapping[str, Mapping[str, Tensor]]
    rounded: Mapping[str, str]


@torch.no_grad()
def calibrate(
    model: GPT, precision: PrecisionSpec, ids_NT: Tensor, *, progress: Callable[[int, int], None] | None = None
) -> Calibration:
    """Quantize the matrices of a model's blocks for the inputs that they have on a text. The model is not changed.

    ::

        calibration = calibrate(model, Int4Spec(), ids_NT)
        apply_precision(model, calibration.precision, stored=calibration.stored)

    Args:
        model: the model, in evaluation mode; adapters are merged.
        precision: the precision.
        ids_NT: windows of the text.
        progress: receives the number of completed steps, and of all.

    Raises:
        GptkitError: the precision has no calibration, it is already applied, or activations are not finite.
    """
    targets, rounded = _targets(model, precision)
    n_batch = max(1, BATCH // ids_NT.shape[1])
    batches = [ids_NT[first : first + n_batch].to(model.device) for first in range(0, len(ids_NT), n_batch)]
    total = 2 * len(batches) * len(model.blocks) + len(targets)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    contexts = [Forward(ids_BT) for ids_BT in batches]
    hidden = [model.embedding(context.ids_BT, context) for context in contexts]
    stored: dict[str, Mapping[str, Tensor]] = {}
    with _Replaced() as replaced:
        for number, block in enumerate(model.blocks):
            with _measured(targets) as moments:
                for x_BTE, context in zip(hidden, contexts, strict=True):
                    block(x_BTE, context.trial())
                    advance()
            for module in [module for module in targets if module in moments]:
                slot = targets.pop(module)
                spec = precision.for_matrix(slot.name)
                stored[slot.parameter], reason = _quantized(slot, spec, moments.pop(module))
                if reason:
                    rounded[slot.parameter] = reason
                weight = spec.dequantize(stored[slot.parameter], slot.shape[-1]).view(slot.shape)
                replaced.put(slot.module, weight.to(slot.weight.dtype))
                advance()
            for index, (x_BTE, context) in enumerate(zip(hidden, contexts, strict=True)):
                hidden[index] = block(x_BTE, context)
                advance()
            # Layers may share modules, which have a place of their own in the model.
            later = (*model.blocks[number + 1 :], model.shared)
            replaced.remove({module for part in later for module in part.modules()})
    rounded |= {slot.parameter: "it had no inputs" for slot in targets.values()}
    return Calibration(precision, ids_NT.numel(), stored, rounded)


def _targets(model: GPT, precision: PrecisionSpec) -> tuple[dict[nn.Module, Slot], dict[str, str]]:
    """Return the places that can be calibrated, by module, and those that cannot with the reason."""
    targets: dict[nn.Module, Slot] = {}
    rounded: dict[str, str] = {}
    for slot in slots(model):
        spec = precision.for_matrix(slot.name)
        if not spec.calibrated:
            rounded[slot.parameter] = f"precision {spec.name!r} has no calibration"
        elif slot.name.partition(".")[0] in ("embedding", "head"):
            rounded[slot.parameter] = OUTSIDE
        else:
            targets[slot.module] = slot
    if not targets:
        reason = next(iter(set(rounded.values()) - {OUTSIDE}), "its blocks have no matrix to quantize")
        raise GptkitError(f"the model cannot be calibrated: {reason}", hint="Quantize it without calibration.")
    return targets, rounded


class _Moments:
    """Sums of x · xᵀ over the inputs of a matrix, or of each expert's.

    Attributes:
        sums_XII: the sums.
        counts: numbers of inputs.
    """

    def __init__(self, slot: Slot, device: torch.device) -> None:
        n_experts, n_columns = slot.shape[0] if len(slot.shape) == 3 else 1, slot.shape[-1]
        self.sums_XII = torch.zeros(n_experts, n_columns, n_columns, device=device)
        self.counts = [0] * n_experts

    def add(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Add the inputs of one call of the module."""
        if isinstance(module, StackedLinear):
            x_MI, groups = inputs
            parts: Sequence[tuple[int, int, int]] = expert_slices(groups.ends_X)
        else:
            x = module.transformed_input(inputs[0]) if isinstance(module, TransformedLinear) else inputs[0]
            x_MI = x.flatten(0, -2)
            parts = [(0, 0, len(x_MI))]
        for expert, first, end in parts:
            part = x_MI[first:end].float()
            self.sums_XII[expert].addmm_(part.T, part)
            self.counts[expert] += end - first


@contextmanager
def _measured(targets: Mapping[nn.Module, Slot]) -> Iterator[dict[nn.Module, _Moments]]:
    """Yield the moments of the modules that are called while the context is open."""
    moments: dict[nn.Module, _Moments] = {}

    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if module not in moments:
            moments[module] = _Moments(targets[module], inputs[0].device)
        moments[module].add(module, inputs)

    handles = [module.register_forward_pre_hook(hook) for module in targets]
    try:
        yield moments
    finally:
        for handle in handles:
            handle.remove()


def _quantized(slot: Slot, spec: PrecisionSpec, moments: _Moments) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a matrix, and why it or some of its experts were not calibrated ("" if all were)."""
    weight_XOI = slot.weight.float().view(-1, *slot.shape[-2:])
    enough = ENOUGH * slot.shape[-1]
    parts, few = [], 0
    for weight_OI, sum_II, count in zip(weight_XOI, moments.sums_XII, moments.counts, strict=True):
        if count < enough:
            few += 1
            parts.append(spec.quantize(weight_OI))
            continue
        if not bool(sum_II.isfinite().all()):
            raise GptkitError(
                f"the inputs of {slot.parameter} are not finite on the calibration text",
                hint="Check the weights: gptkit evaluate RUN.",
            )
        parts.append(spec.calibrate(weight_OI, sum_II / count))
    which = f"{few} of {len(parts)} experts" if len(parts) > 1 else "it"
    reason = f"{which} had fewer than {enough:,.0f} inputs on the calibration text" if few else ""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}, reason


class _Replaced(AbstractContextManager["_Replaced"]):
    """Modules that multiply with another matrix until the context is left."""

    def __init__(self) -> None:
        self._modules: set[nn.Module] = set()

    def put(self, module: nn.Module, weight: Tensor) -> None:
        """Let a module multiply with a matrix."""
        self._modules.add(module)
        module.forward = _product(module, weight)

    def remove(self, kept: Collection[nn.Module] = ()) -> None:
        """Free the matrices of all modules but some."""
        for module in self._modules - set(kept):
            del module.forward
            self._modules.remove(module)

    def __exit__(self, *_: object) -> None:
        self.remove()


def _product(module: nn.Module, weight: Tensor) -> Callable[..., Tensor]:
    if isinstance(module, StackedLinear):
        return lambda x_MI, groups: grouped_linear(x_MI, weight, module.bias, groups)
    assert isinstance(module, nn.Linear)
    if isinstance(module, TransformedLinear):
        return lambda x: F.linear(module.transformed_input(x), weight, module.bias)
    return lambda x: F.linear(x, weight, module.bias)
