"""Application of a precision to a model in place: its matrices are packed for inference, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gptkit.core.errors import GptkitError
from gptkit.kinds.precision import PrecisionSpec
from gptkit.model.gpt import GPT
from gptkit.nn.head import Head
from gptkit.nn.linear import TransformedLinear
from gptkit.nn.packed import PackedMatrix
from gptkit.nn.packed_modules import PackedEmbedding, PackedLinear, PackedStack
from gptkit.nn.stacked import StackedLinear
from gptkit.ops.dtypes import has_bf16

__all__ = ["Packed", "Slot", "activation_dtype", "apply_precision", "place", "settle", "slots"]


@dataclass(frozen=True)
class Packed:
    """A matrix that was packed.

    Attributes:
        name: the name of its parameter, ``blocks.0.attention.qkv.weight``.
        precision: the name of its precision.
        shape: its shape; of stacked experts (experts, rows, columns).
        bytes_before: its size before.
        bytes_after: its size in memory now.
        error: ‖W − Ŵ‖ / ‖W‖; None if it was not measured.
    """

    name: str
    precision: str
    shape: tuple[int, ...]
    bytes_before: int
    bytes_after: int
    error: float | None = None


@dataclass(frozen=True)
class Slot:
    """A place in a model whose matrix can be packed.

    Attributes:
        name: the name of its module, or the head's; `PrecisionSpec.for_matrix` receives it.
        parameter: the name of its parameter.
        module: the module with the weight.
    """

    name: str
    parameter: str
    module: nn.Module

    @property
    def weight(self) -> Tensor:
        """The matrix in use, with adapters merged: (O, I), or (X, O, I) for experts."""
        if isinstance(self.module, TransformedLinear):
            return self.module.transformed_weight().detach()
        return self._parameter.detach()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the matrix."""
        return tuple(self._parameter.shape)

    @property
    def _parameter(self) -> Tensor:
        parameter: Tensor = getattr(self.module, self.parameter.rpartition(".")[2])
        return parameter


def slots(model: GPT) -> Iterator[Slot]:
    """Yield the places of the matrices that a precision applies to, in the model's order.

    Raises:
        GptkitError: a precision is already applied.
    """
    if model.precision is not None:
        raise GptkitError(
            f"the model is already in precision {model.precision.name!r}", hint="Load the run again with the other one."
        )
    table = model.embedding.table_VE
    for name, module in list(model.named_modules()):
        is_projection = isinstance(module, nn.Linear) and getattr(module, "is_projection", False)
        if (
            is_projection
            or isinstance(module, StackedLinear)
            or (isinstance(module, nn.Embedding) and module.weight is table)
        ):
            yield Slot(name, f"{name}.weight", module)
        elif isinstance(module, Head):
            for matrix in module.matrices:
                yield Slot(name, f"{name}.{matrix}", module)


def activation_dtype(precision: PrecisionSpec, device: torch.device) -> torch.dtype:
    """Return the dtype of activations and norms on a device."""
    choice = precision.dtype_choice
    if choice == "auto":
        choice = "bf16" if has_bf16(device) else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[choice]


@torch.no_grad()
def apply_precision(
    model: GPT,
    precision: PrecisionSpec,
    *,
    stored: Mapping[str, Mapping[str, Tensor]] | None = None,
    device: torch.device | None = None,
    measure: bool = False,
) -> list[Packed]:
    """Pack the matrices of a model for inference, in place; each original is freed before the next is packed.

    ::

        model = gptkit.load("runs/gpt").model
        apply_precision(model, Int8Spec())

    The model is then in evaluation mode, without gradients, and stays on its device. Matrices are converted on the device
    that they are on, and only then moved.

    Args:
        model: the model. Adapters are merged.
        precision: the precision.
        stored: the tensors of matrices that are already quantized (`gptkit.model.calibration`), by parameter.
        device: the device to move the model to; its own by default.
        measure: also compute the error of each matrix.

    Returns:
        What was packed, in the model's order. Other parameters were converted to the dtype of the activations.

    Raises:
        GptkitError: the precision cannot be used on the device, or one is already applied.
    """
    device = device or model.device
    targets = list(slots(model))
    for spec in {id(spec): spec for spec in (precision, *(precision.for_matrix(slot.name) for slot in targets))}.values():
        limitation = spec.limitation(device.type)
        if limitation is not None:
            raise GptkitError(
                f"precision {spec.name!r} cannot be used on the device {device.type}: {limitation}",
                hint="Choose another one: gptkit components precision.",
            )
    dtype = activation_dtype(precision, device)
    result = []
    for slot in targets:
        spec, weight = precision.for_matrix(slot.name), slot.weight
        before = weight.numel() * weight.element_size()
        flat = weight.flatten(0, -2)
        ready = (stored or {}).get(slot.parameter)
        tensors = spec.quantize(flat.float()) if ready is None else ready
        error = None
        if measure:
            difference = spec.dequantize(tensors, weight.shape[-1]) - flat
            error = float(difference.norm() / flat.float().norm().clamp_min(1e-30))
            del difference
        moved = {name: tensor.to(device) for name, tensor in tensors.items()}
        matrices = place(model, slot, spec, moved, tuple(weight.shape), dtype)
        after = sum(matrix.n_bytes for matrix in matrices)
        result.append(Packed(slot.parameter, spec.name, tuple(weight.shape), before, after, error))
        del weight, flat, tensors, moved
    settle(model, precision, dtype, device)
    return result


def settle(model: GPT, precision: PrecisionSpec, dtype: torch.dtype, device: torch.device | None = None) -> None:
    """Convert what was not packed to the dtype of the activations, except parameters that stay in fp32, and mark the model.

    Args:
        model: the model, whose matrices are packed.
        precision: the precision that was applied.
        dtype: the dtype of the activations.
        device: the device of the packed matrices, if it is not that of the model.
    """
    model.to(device, dtype).eval().requires_grad_(False)
    model.precision = precision


def place(
    model: GPT,
    slot: Slot,
    precision: PrecisionSpec,
    stored: Mapping[str, Tensor],
    shape: tuple[int, ...],
    dtype: torch.dtype,
) -> Sequence[PackedMatrix]:
    """Put a packed matrix into its place, and free the original.

    Args:
        model: the model.
        slot: the place.
        precision: the precision of this matrix.
        stored: the tensors that represent it.
        shape: the shape of the original.
        dtype: the dtype of the activations.

    Returns:
        The packed matrix, or one for each expert.
    """
    module, n_columns = slot.module, shape[-1]
    if isinstance(module, StackedLinear):
        n_rows = shape[1]
        experts = [
            precision.build({name: tensor[at : at + n_rows] for name, tensor in stored.items()}, n_columns, dtype)
            for at in range(0, shape[0] * n_rows, n_rows)
        ]
        _replace(model, slot.name, PackedStack(experts, module.bias))
        module.weight = None  # type: ignore[assignment]
        return experts
    is_table = isinstance(module, nn.Embedding)
    packed = precision.build(stored, n_columns, dtype, lookup=is_table)
    if isinstance(module, Head):
        attribute = slot.parameter.rpartition(".")[2]
        delattr(module, attribute)
        setattr(module, attribute, packed)
    elif is_table:
        _replace(model, slot.name, PackedEmbedding(packed))
        model.embedding.packed_table = (packed,)
    else:
        assert isinstance(module, nn.Linear)
        _replace(model, slot.name, PackedLinear(packed, module.bias, module))
    return [packed]


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put a module into another one's place, wherever the model refers to it."""
    old = model.get_submodule(name)
    for module in list(model.modules()):
        for key, child in list(module._modules.items()):
            if child is old:
                module._modules[key] = new
