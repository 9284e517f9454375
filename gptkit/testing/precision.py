"""Checks of precisions: conversion of matrices, their products, and whole models.

Shapes: O rows of a matrix (outputs), I columns (inputs), M rows of inputs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.core.errors import StateError
from gptkit.model.gpt import GPT
from gptkit.model.packing import activation_dtype, apply_precision, slots
from gptkit.nn.packed import PackedMatrix, for_compiler
from gptkit.testing.check import Checks, expect, same, skip
from gptkit.testing.subject import D_HEAD, D_MODEL, VOCAB, Subject, stirred_matrices, token_ids

__all__ = ["checks"]

checks = Checks()

_SIZES = ((48, 64), (33, 50), (1, 8), (130, 96))
_ROWS = (1, 2, 3, 8, 17, 64, 90)
_CPU = torch.device("cpu")

_LAYOUTS: Mapping[str, dict[str, Any]] = {
    "a tied head": {"head": {"name": "linear", "tied": True}},
    "a head of its own": {},
    "experts": {
        "feedforward": {
            "name": "experts",
            "n_experts": 4,
            # All of them, so that rounding cannot choose others.
            "router": {"name": "softmax-top-k", "k": 4},
            "expert": {"name": "gated", "d_hidden": 24},
        }
    },
    "adapters": {"linear": {"name": "low-rank", "rank": 2, "alpha": 1}},
}


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _built(subject: Subject, weight_OI: Tensor, *, lookup: bool = False) -> tuple[PackedMatrix, Tensor]:
    """Return the packed matrix, and the matrix that it stands for in fp32."""
    spec, n_columns = subject.spec, weight_OI.shape[1]
    stored = spec.quantize(weight_OI)
    matrix = spec.build(stored, n_columns, activation_dtype(spec, _CPU), lookup=lookup)
    expect(isinstance(matrix, PackedMatrix), f"build returned a {type(matrix).__name__}, which is not a PackedMatrix")
    return matrix, spec.dequantize(stored, n_columns)


def _products(subject: Subject, weight_OI: Tensor) -> Iterator[tuple[str, Tensor, Tensor, Tensor, Tensor]]:
    """Yield for several numbers of rows: a description, the product, the inputs, the bias, the dequantized matrix."""
    matrix, dequantized = _built(subject, weight_OI)
    for n_rows in _ROWS:
        for biased in (False, True):
            x_MI = _normal(n_rows, weight_OI.shape[1], seed=n_rows).to(matrix.dtype)
            bias_O = (_normal(len(weight_OI), seed=1) * biased).to(matrix.dtype)
            y_MO = matrix(x_MI, bias_O if biased else None)
            expect(y_MO.dtype == matrix.dtype, f"inputs in {matrix.dtype} gave outputs in {y_MO.dtype}")
            size = " × ".join(map(str, weight_OI.shape))
            yield f"{size}, {n_rows} rows{', with a bias' * biased}", y_MO, x_MI, bias_O, dequantized


def _error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-30))


@checks.add("close-to-fp32", "Users choose a precision by its loss of accuracy, which `tolerance` declares.")
@torch.no_grad()
def close_to_fp32(subject: Subject) -> None:
    tolerance = subject.spec.tolerance
    for size in ((48, 64), (130, 96), (64, 320)):
        weight_OI = _normal(*size, seed=3) * 0.02
        for what, y_MO, x_MI, bias_O, _ in _products(subject, weight_OI):
            error = _error(y_MO, F.linear(x_MI.double(), weight_OI.double(), bias_O.double()))
            expect(
                error <= tolerance, f"the product differs by {error:.2%} from fp32, {what}; `tolerance` is {tolerance:.2%}"
            )


@checks.add("product-of-its-matrix", "Perplexity is measured with the dequantized matrix, texts come from products.")
@torch.no_grad()
def product_of_its_matrix(subject: Subject) -> None:
    for size in _SIZES:
        for what, y_MO, x_MI, bias_O, dequantized in _products(subject, _normal(*size)):
            expect(y_MO.shape == (len(x_MI), size[0]), f"the product has shape {tuple(y_MO.shape)}, {what}")
            difference = y_MO.double() - F.linear(x_MI.double(), dequantized.double(), bias_O.double())
            # Relative to the sum of magnitudes, since the terms of a product cancel.
            terms = F.linear(x_MI.double().abs(), dequantized.double().abs(), bias_O.double().abs())
            error = float(difference.norm() / terms.norm())
            allowed = 0.005 if y_MO.dtype == torch.bfloat16 else 1e-6
            expect(error <= allowed, f"the product differs by {error:.2%} from that of the dequantized matrix, {what}")
    matrix, dequantized = _built(subject, _normal(*_SIZES[1]))
    x = _normal(2, 3, _SIZES[1][1]).to(matrix.dtype)
    expect(matrix(x).shape == (2, 3, _SIZES[1][0]), f"inputs of shape {tuple(x.shape)} gave {tuple(matrix(x).shape)}")
    expect(matrix(x[:0]).shape == (0, 3, _SIZES[1][0]), "inputs without rows gave another shape")
    same(matrix.dense().float(), dequantized, "dense() is not the dequantized matrix", 0.01)


@checks.add("survives-outliers", "Trained matrices have rows of very different size, empty rows and constant ones.")
@torch.no_grad()
def survives_outliers(subject: Subject) -> None:
    weight_OI = _normal(48, 64)
    weight_OI[3] *= 1000
    weight_OI[7] = 0
    weight_OI[9] = 0.25
    weight_OI[11] *= 1e-6
    dequantized = _built(subject, weight_OI)[1]
    expect(dequantized.isfinite().all(), "the dequantized matrix is not finite")
    expect(float(dequantized[7].abs().max()) == 0, f"a row of zeros became {float(dequantized[7].abs().max()):.3g}")
    for row in range(48):
        error = _error(dequantized[row], weight_OI[row]) if row != 7 else 0.0
        expect(
            error <= 2 * subject.spec.tolerance,
            f"row {row} differs by {error:.1%}; one row is a thousand times larger, one constant, one tiny",
        )


@checks.add("row-by-row", "Rows are looked up by themselves, and experts share a matrix, so no row may depend on others.")
@torch.no_grad()
def row_by_row(subject: Subject) -> None:
    weight_OI = _normal(40, 50)
    weight_OI[5] *= 30
    whole = subject.spec.quantize(weight_OI)
    expect(isinstance(whole, dict) and bool(whole), "quantize returned no tensors")
    for name, tensor in whole.items():
        expect(
            tensor.ndim > 0 and len(tensor) == 40,
            f"{name!r} is {tuple(tensor.shape)}; its first dimension is not 40 rows",
        )
    chosen = torch.tensor([0, 31, 7, 7])
    alone = subject.spec.quantize(weight_OI[chosen])
    for name, tensor in whole.items():
        expect(torch.equal(tensor[chosen], alone[name]), f"{name!r} of some rows depends on the other rows")
    some = subject.spec.dequantize({name: tensor[chosen] for name, tensor in whole.items()}, 50)
    same(some, subject.spec.dequantize(whole, 50)[chosen], "some rows are dequantized to other numbers than all rows")


@checks.add("looks-up-rows", "The table of an embedding is looked up by token ids.")
@torch.no_grad()
def looks_up_rows(subject: Subject) -> None:
    matrix, dequantized = _built(subject, _normal(33, 50), lookup=True)
    ids = torch.tensor([[0, 32, 5], [5, 1, 0]])
    rows = matrix.rows(ids)
    expect(rows.dtype == matrix.dtype, f"rows are in {rows.dtype}, not in {matrix.dtype}")
    same(rows.float(), dequantized[ids], "rows() does not return the rows of the matrix", 0.01)


@checks.add("deterministic", "Equal weights must give equal files and equal texts.")
@torch.no_grad()
def deterministic(subject: Subject) -> None:
    weight_OI = _normal(48, 64)
    before = weight_OI.clone()
    one = subject.spec.quantize(weight_OI)
    torch.manual_seed(5)
    other = subject.spec.quantize(weight_OI)
    expect(torch.equal(weight_OI, before), "quantize changes the matrix that it is given")
    expect(one.keys() == other.keys(), f"quantized twice, the tensors are {sorted(one)} and {sorted(other)}")
    for name, tensor in one.items():
        expect(torch.equal(tensor, other[name]), f"quantized twice, {name!r} differs")
    matrix = _built(subject, weight_OI)[0]
    x_MI = _normal(3, 64).to(matrix.dtype)
    expect(torch.equal(matrix(x_MI), matrix(x_MI)), "multiplied twice, the products differ")


@checks.add("storable", "The tensors are written as safetensors, and a run is loaded from them without conversion.")
@torch.no_grad()
def storable(subject: Subject) -> None:
    spec, weight_OI = subject.spec, _normal(33, 50)
    stored = spec.quantize(weight_OI)
    loaded = safetensors.torch.load(safetensors.torch.save({name: t.contiguous() for name, t in stored.items()}))
    dequantized = spec.dequantize(loaded, 50)
    expect(dequantized.dtype == torch.float32, f"dequantize returned {dequantized.dtype}, not fp32")
    expect(dequantized.shape == (33, 50), f"dequantize returned shape {tuple(dequantized.shape)}, not (33, 50)")
    same(dequantized, spec.dequantize(stored, 50), "saved and loaded, the tensors represent another matrix")
    again = spec.quantize(dequantized)
    error = _error(spec.dequantize(again, 50), dequantized)
    expect(error <= 0.02, f"quantizing a dequantized matrix again changes it by {error:.1%}")


@checks.add("calibrates", "A calibration takes minutes, and users expect a better text in return.")
@torch.no_grad()
def calibrates(subject: Subject) -> None:
    spec = subject.spec
    if not spec.calibrated:
        skip("it declares no calibration")
    for n_rows, n_columns in ((48, 64), (33, 50)):
        weight_OI = _normal(n_rows, n_columns)
        # Inputs of very different size that depend on one another, as those of a trained model.
        x_MI = _normal(500, n_columns, seed=1) @ (_normal(n_columns, n_columns, seed=2) * torch.linspace(0.1, 2, n_columns))
        moments_II = x_MI.T @ x_MI / len(x_MI)
        before = weight_OI.clone(), moments_II.clone()
        plain, stored = spec.quantize(weight_OI), spec.calibrate(weight_OI, moments_II)
        same_inputs = torch.equal(weight_OI, before[0]) and torch.equal(moments_II, before[1])
        expect(same_inputs, "calibrate changes the matrix or the moments that it is given")
        layouts = [{name: (tuple(t.shape), t.dtype) for name, t in each.items()} for each in (plain, stored)]
        expect(layouts[0] == layouts[1], f"quantize returned {layouts[0]}, and calibrate {layouts[1]}")
        wanted = F.linear(x_MI, weight_OI)
        errors = [_error(F.linear(x_MI, spec.dequantize(each, n_columns)), wanted) for each in (plain, stored)]
        expect(
            errors[1] < errors[0],
            f"with its inputs, the calibrated matrix has an error of {errors[1]:.2%}, the other one {errors[0]:.2%}",
        )
        again = spec.calibrate(weight_OI, moments_II)
        for name, tensor in stored.items():
            expect(torch.equal(tensor, again[name]), f"calibrated twice, {name!r} differs")


@checks.add("without-gradients", "A packed model cannot be trained: a gradient that is silently missing would mislead.")
def without_gradients(subject: Subject) -> None:
    matrix = _built(subject, _normal(48, 64))[0]
    expect(not list(matrix.parameters()), "the matrix has parameters; register buffers")
    expect(
        not matrix.state_dict(), f"the matrix has persistent buffers: {', '.join(matrix.state_dict())}; add persistent=False"
    )
    x_MI = _normal(2, 64).to(matrix.dtype).requires_grad_()
    try:
        matrix(x_MI)
    except StateError:
        return
    expect(False, "inputs that require a gradient are accepted")


@checks.add("counts-its-bytes", "Sizes decide which model fits, and `gptkit quantize` prints them.")
@torch.no_grad()
def counts_its_bytes(subject: Subject) -> None:
    weight_OI = _normal(64, 256)
    matrix = _built(subject, weight_OI)[0]
    held = sum(buffer.numel() * buffer.element_size() for buffer in matrix.buffers())
    expect(matrix.n_bytes == held, f"n_bytes is {matrix.n_bytes}, but its buffers have {held}")
    stored = sum(t.numel() * t.element_size() for t in subject.spec.quantize(weight_OI).values())
    expect(held <= 1.1 * max(stored, 1), f"it holds {held:,} bytes for a matrix whose tensors have {stored:,}")
    expect(stored <= 4 * weight_OI.numel(), f"the tensors of a matrix have {stored:,} bytes, more than in fp32")


@checks.add("copies", "Models are copied; a copy must be complete, and a matrix stays in its dtype.")
@torch.no_grad()
def copies(subject: Subject) -> None:
    matrix = _built(subject, _normal(48, 64))[0]
    x_MI = _normal(3, 64).to(matrix.dtype)
    same(copy.deepcopy(matrix)(x_MI), matrix(x_MI), "a deep copy multiplies differently")
    same(matrix.to(matrix.dtype)(x_MI), matrix(x_MI), "converted to its own dtype, it multiplies differently")
    try:
        matrix.to(torch.float64)
    except StateError:
        return
    expect(False, "it can be converted to another dtype, in which its product is not defined")


@checks.add("packs-a-model", "Every matrix of a model is packed: of projections, experts, embedding and head.")
@torch.no_grad()
def packs_a_model(subject: Subject) -> None:
    spec, ids = subject.spec, token_ids(2, 20)
    for what, changes in _LAYOUTS.items():
        model = _model(subject, changes)
        reference = copy.deepcopy(model)
        for slot in slots(reference):
            _round(slot.module, slot.weight, spec.for_matrix(slot.name))
        names = [slot.parameter for slot in slots(model)]
        packed = apply_precision(model, spec)
        expect([each.name for each in packed] == names, f"of {names}, it packed {[each.name for each in packed]}")
        logits, wanted = model(ids).logits, reference(ids).logits
        error = _error(logits, wanted)
        allowed = 0.06 if logits.dtype == torch.bfloat16 else 1e-4
        expect(error <= allowed, f"a model with {what} gives logits that differ by {error:.1%} from the dequantized one's")
        cache = model.new_cache(2)
        pieces = [model(piece, cache=cache).logits for piece in torch.split(ids, [17, 1, 1, 1], dim=1)]
        error = _error(torch.cat(pieces, 1), logits)
        expect(error <= allowed, f"decoding a model with {what} gives logits that differ by {error:.1%} from the whole pass")


@checks.add("compiles", "A compiled decode step is one graph.", slow=True)
@torch.no_grad()
def compiles(subject: Subject) -> None:
    ids = token_ids(1, 1)
    for what, changes in _LAYOUTS.items():
        model = _model(subject, changes)
        apply_precision(model, subject.spec)
        plain = model(ids).logits
        torch.compiler.reset()
        for_compiler(model)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        error = _error(compiled(ids).logits, plain)
        expect(error <= 0.02, f"compiled, a model with {what} gives logits that differ by {error:.1%}")


def _model(subject: Subject, changes: Mapping[str, Any]) -> GPT:
    attention = {"name": "multi-head", "n_heads": 2, "d_head": D_HEAD}
    layout = {"d_model": D_MODEL, "n_layers": 2, "context_length": 48, "attention": attention, **changes}
    return stirred_matrices(GPT(subject.read(layout), VOCAB)).eval()  # type: ignore[no-any-return]


def _round(module: torch.nn.Module, weight: Tensor, spec: Any) -> None:
    """Replace a matrix by the one that a precision represents, and remove its adapter."""
    stored = spec.quantize(weight.flatten(0, -2))
    rounded = spec.dequantize(stored, weight.shape[-1]).view(weight.shape)
    for name in ("lora_a", "lora_b"):
        if getattr(module, name, None) is not None:
            setattr(module, name, None)
    module.get_parameter("weight").copy_(rounded)
