"""Loading of weights, which a run may store in a precision for inference.

The model.safetensors of such a run has, for each matrix that is packed, the tensors of `PrecisionSpec.quantize`, each under
the name of the parameter and its own (``blocks.0.attention.qkv.weight.values``). They have as many rows as the matrix; the
experts of a mixture follow one another. All other tensors are the model's. The checkpoint's state.json names the precision.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptkit.checkpoint.entries import MODEL, STATE
from gptkit.checkpoint.safetensors import cause, damaged, fill_tensors, read_tensors, weights
from gptkit.checkpoint.store import load_weights
from gptkit.core.component import Component
from gptkit.core.errors import GptkitError, SpecError
from gptkit.core.registry import Registry
from gptkit.core.walk import components
from gptkit.kinds.precision import PrecisionSpec
from gptkit.model.gpt import GPT
from gptkit.model.packing import activation_dtype, apply_precision, place, settle, slots
from gptkit.nn.freezing import adapter_names
from gptkit.runs.directory import RunDirectory
from gptkit.runs.precisions import precision_of

__all__ = ["load_model", "parts", "quantized_tensors"]


def parts(precision: PrecisionSpec) -> Iterator[Component]:
    """Yield a precision and those in its fields."""
    yield precision
    for _, part in components(precision):
        yield part


@torch.no_grad()
def quantized_tensors(
    model: GPT, precision: PrecisionSpec, ready: Mapping[str, Mapping[str, Tensor]] | None = None
) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Yield the tensors of a run in a precision, matrix by matrix, each with the name of its parameter; "" for all others.

    Args:
        model: a model without a precision; its adapters are merged.
        precision: the precision.
        ready: the tensors of matrices that are already quantized, by parameter.
    """
    packed = list(slots(model))
    names = {slot.parameter for slot in packed} | adapter_names(model)
    for slot in packed:
        stored = (ready or {}).get(slot.parameter)
        if stored is None:
            stored = precision.for_matrix(slot.name).quantize(slot.weight.flatten(0, -2).float())
        yield slot.parameter, {f"{slot.parameter}.{name}": tensor.contiguous() for name, tensor in stored.items()}
    yield "", {name: tensor for name, tensor in weights(model).items() if name not in names}


def load_model(
    model: GPT,
    directory: RunDirectory,
    checkpoint: Path,
    state: Mapping[str, Any],
    device: torch.device,
    precision: PrecisionSpec | None,
    registry: Registry | None,
) -> None:
    """Fill a model with the weights of a checkpoint, and move it to a device.

    Args:
        model: the model of the run's spec, whose values are replaced.
        directory: the run.
        checkpoint: the checkpoint's directory.
        state: what `read_state` returned for it.
        device: the device of the weights.
        precision: the precision to convert them to, or None.
        registry: where components are looked up.

    Raises:
        CheckpointError: a file is damaged, or does not fit the model.
        RequirementError: the plugin of the precision in which they are stored is not installed.
        GptkitError: they are stored in another precision.
    """
    if "quantized" not in state:
        load_weights(model, checkpoint, assign=True)
        if precision is None:
            model.to(device)
        else:
            apply_precision(model, precision, device=device)
        return
    stored = _stored_precision(directory, checkpoint, state, registry)
    if precision is not None and precision != stored:
        other = precision.name if precision.name != stored.name else "one with these fields"
        raise GptkitError(
            f"the weights of {directory.path} are stored in precision {stored.name!r}, not in {other}",
            hint="Load it without a precision, or quantize the run that it was made from.",
        )
    _load_quantized(model, checkpoint / MODEL, stored, device)


def _stored_precision(
    directory: RunDirectory, checkpoint: Path, state: Mapping[str, Any], registry: Registry | None
) -> PrecisionSpec:
    try:
        return precision_of(state["quantized"]["precision"], registry)
    except SpecError as error:
        directory.require_components(registry)
        raise damaged(checkpoint / STATE, error.message) from None
    except (KeyError, TypeError) as error:
        raise damaged(checkpoint / STATE, cause(error)) from None


@torch.no_grad()
def _load_quantized(model: GPT, file: Path, precision: PrecisionSpec, device: torch.device) -> None:
    """Fill a model from tensors in a precision, and leave it in this precision."""
    tensors = read_tensors(file)
    dtype = activation_dtype(precision, device)
    for slot in list(slots(model)):
        spec, shape = precision.for_matrix(slot.name), slot.shape
        own = {name: name.removeprefix(f"{slot.parameter}.") for name in tensors if name.startswith(f"{slot.parameter}.")}
        stored = {short: tensors.pop(name) for name, short in own.items()}
        _require_layout(file, slot.parameter, stored, spec, shape)
        place(model, slot, spec, {name: tensor.to(device) for name, tensor in stored.items()}, shape, dtype)
    fill_tensors(model, tensors, file, assign=True)
    settle(model, precision, dtype, device)


def _require_layout(
    file: Path, parameter: str, stored: Mapping[str, Tensor], spec: PrecisionSpec, shape: tuple[int, ...]
) -> None:
    """Raise unless the tensors have the names, dtypes and shapes that the precision gives a matrix of this shape."""
    n_rows = math.prod(shape[:-1])
    one_row = spec.quantize(torch.zeros(1, shape[-1]))
    wanted = {name: ((n_rows, *tensor.shape[1:]), tensor.dtype) for name, tensor in one_row.items()}
    present = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in stored.items()}
    for name in {**wanted, **present}:
        if wanted.get(name) != present.get(name):
            seen, needed = (_described(entries.get(name)) for entries in (present, wanted))
            raise damaged(file, f"{parameter}.{name} is {seen}; precision {spec.name!r} needs {needed}")


def _described(entry: tuple[tuple[int, ...], torch.dtype] | None) -> str:
    return "absent" if entry is None else f"{entry[0]} {str(entry[1]).removeprefix('torch.')}"
