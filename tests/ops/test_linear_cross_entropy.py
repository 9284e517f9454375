"""The chunked loss against cross_entropy on all logits, gradients included."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.nn.part_group import PartGroup
from gptkit.nn.vocabulary import VocabularyPart
from gptkit.ops import cross_entropy_rows
from gptkit.ops import linear_cross_entropy as module
from gptkit.ops.linear_cross_entropy import linear_cross_entropy
from gptkit.testing.parts import in_parts

N, E, V = 13, 7, 37
OPTIONS = list(itertools.product((False, True), (1.0, 0.3), (None, 4.0), (0.0, 0.1)))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use several chunks, blocks and tiles, the last of each smaller than the others."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 5 * V * 4)
    monkeypatch.setattr(cross_entropy_rows, "BLOCK_BYTES", 2 * V * 4)
    monkeypatch.setattr(module, "TILE_CLASSES", 8)


def case(dtype: torch.dtype, bias: bool = True, spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return (torch.randn(*shape, generator=generator, dtype=torch.float64) * spread).to(dtype).requires_grad_()

    targets = torch.randint(V, (N,), generator=generator)
    targets[3] = targets[9] = -100
    return draw(N, E), draw(V, E), targets, draw(V) if bias else None


def plain(
    x: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None, scale: float, softcap: float | None, z_loss: float
) -> Tensor:
    logits = F.linear(x, weight, bias) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    valid = targets != -100
    return F.cross_entropy(logits, targets) + z_loss * torch.logsumexp(logits, 1)[valid].square().mean()


def compare(dtype: torch.dtype, bias: bool, options: tuple[Any, ...], factor: float = 1.0, tolerance: float = 1e-5) -> None:
    x, weight, targets, b = case(dtype, bias)
    inputs = [tensor for tensor in (x, weight, b) if tensor is not None]
    scale, softcap, z_loss = options
    actual = linear_cross_entropy(x, weight, targets, b, scale=scale, softcap=softcap, z_loss=z_loss)
    wanted = plain(x, weight, targets, b, *options)
    torch.testing.assert_close(actual, wanted, rtol=tolerance, atol=tolerance)
    for got, gradient in zip(
        torch.autograd.grad(actual * factor, inputs), torch.autograd.grad(wanted * factor, inputs), strict=True
    ):
        assert got.dtype == dtype
        torch.testing.assert_close(got, gradient, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("bias", "scale", "softcap", "z_loss"), OPTIONS)
@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_loss_equals_cross_entropy(bias: bool, scale: float, softcap: float | None, z_loss: float, factor: float) -> None:
    compare(torch.float32, bias, (scale, softcap, z_loss), factor)
    compare(torch.float64, bias, (scale, softcap, z_loss), factor, tolerance=1e-12)


@pytest.mark.parametrize(("bias", "scale", "softcap", "z_loss"), OPTIONS)
def test_gradients_pass_gradcheck(bias: bool, scale: float, softcap: float | None, z_loss: float) -> None:
    x, weight, targets, b = case(torch.float64, bias)

    def loss(*tensors: Tensor) -> Tensor:
        return linear_cross_entropy(
            tensors[0],
            tensors[1],
            targets,
            tensors[2] if bias else None,
            scale=scale,
            softcap=softcap,
            z_loss=z_loss,
        )

    assert torch.autograd.gradcheck(loss, (x, weight, b) if b is not None else (x, weight), fast_mode=True)


@pytest.mark.parametrize(("bias", "scale", "softcap", "z_loss"), OPTIONS)
@pytest.mark.parametrize("pure", [False, True])
def test_bf16_is_close_to_fp32(bias: bool, scale: float, softcap: float | None, z_loss: float, pure: bool) -> None:
    """Both with autocast (fp32 weights, fp32 gradients) and with bf16 weights."""
    x, weight, targets, b = case(torch.float32, bias)
    wanted = plain(x, weight, targets, b, scale, softcap, z_loss)
    inputs = [tensor for tensor in (x, weight, b) if tensor is not None]
    gradients = torch.autograd.grad(wanted, inputs)
    mine = [tensor.detach().to(torch.bfloat16 if pure else torch.float32).requires_grad_() for tensor in inputs]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not pure):
        actual = linear_cross_entropy(
            mine[0],
            mine[1],
            targets,
            mine[2] if bias else None,
            scale=scale,
            softcap=softcap,
            z_loss=z_loss,  # type: ignore[arg-type]
        )
    assert actual.dtype == torch.float32
    assert actual.item() == pytest.approx(wanted.item(), rel=0.01)
    for got, gradient, tensor in zip(torch.autograd.grad(actual, mine), gradients, mine, strict=True):
        assert got.dtype == tensor.dtype
        assert (got - gradient).norm() < 0.02 * gradient.norm()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("bias", "scale", "softcap", "z_loss"), OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_parts_of_the_classes_give_the_loss_and_gradients_of_all(
    bias: bool, scale: float, softcap: float | None, z_loss: float, smoothing: float, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(1)
    x, weight, b = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((N, E), (36, E), (36,)))
    x, weight, b = (tensor.to(dtype) for tensor in (x, weight, b))
    targets = torch.randint(36, (N,), generator=generator)
    targets[3] = -100
    options: Any = {"scale": scale, "softcap": softcap, "z_loss": z_loss, "smoothing": smoothing}

    def run(rows: slice, part: VocabularyPart | None) -> tuple[Tensor, ...]:
        inputs = [tensor.clone().requires_grad_() for tensor in (x, weight[rows], b[rows])]
        loss = linear_cross_entropy(inputs[0], inputs[1], targets, inputs[2] if bias else None, part=part, **options)
        return loss, *torch.autograd.grad(loss, inputs if bias else inputs[:2])

    def of_part(index: int, group: PartGroup) -> tuple[Tensor, ...]:
        return run(slice(12 * index, 12 * index + 12), VocabularyPart(index, 12, 36, group))

    whole = run(slice(None), None)
    parts = in_parts(3, of_part)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-2
    for loss, grad_x, *_ in parts:
        torch.testing.assert_close(loss, whole[0], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(grad_x, whole[1], rtol=tolerance, atol=tolerance)
    for own, expected in zip(zip(*parts, strict=True), whole, strict=True):
        if own[0].shape and own[0].shape[0] == 12:
            torch.testing.assert_close(torch.cat(own), expected, rtol=tolerance, atol=tolerance)


def test_weight_gradients_are_summed_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many equal chunks, each adding a little: a sum in bf16 stops growing at 256 times one of them."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    x = torch.ones(1000, 1)
    weight = torch.zeros(2, 1, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(x, weight, torch.zeros(1000, dtype=torch.long))
    loss.backward()
    torch.testing.assert_close(weight.grad, torch.tensor([[-0.5], [0.5]]), rtol=0.01, atol=0)


def test_confident_prediction_keeps_its_small_gradient_in_bf16() -> None:
    """Where the target's probability rounds to 1 in bf16, its gradient is still that of the other classes."""
    x = torch.tensor([[1.0]], requires_grad=True)
    weight = torch.tensor([[8.0], [0.0]], requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        linear_cross_entropy(x, weight, torch.tensor([0])).backward()
    assert weight.grad is not None
    assert weight.grad[0].item() == pytest.approx(-3.35e-4, rel=0.01)
    assert weight.grad.sum().abs() < 1e-5


@pytest.mark.parametrize("spread", [30.0, 300.0])
def test_large_logits_stay_finite(spread: float) -> None:
    x, weight, targets, _ = case(torch.float32, spread=spread)
    actual = linear_cross_entropy(x, weight, targets)
    torch.testing.assert_close(actual, plain(x, weight, targets, None, 1.0, None, 0.0), rtol=1e-5, atol=1e-5)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(actual, [x, weight]))


def test_loss_is_zero_if_all_targets_are_ignored() -> None:
    x, weight, targets, bias = case(torch.float32)
    loss = linear_cross_entropy(x, weight, torch.full_like(targets, -100), bias)
    assert loss.item() == 0
    assert all(gradient.abs().max() == 0 for gradient in torch.autograd.grad(loss, [x, weight, bias]))  # type: ignore[list-item]


def test_ignored_value_can_be_changed() -> None:
    x, weight, targets, _ = case(torch.float32)
    targets = torch.where(targets == -100, 5, targets)
    actual = linear_cross_entropy(x, weight, targets, ignored=5)
    torch.testing.assert_close(actual, F.cross_entropy(F.linear(x, weight), targets, ignore_index=5))


def test_gradients_are_computed_only_for_inputs_that_require_them() -> None:
    x, weight, targets, bias = case(torch.float32)
    whole = linear_cross_entropy(x, weight, targets, bias)
    with torch.no_grad():
        silent = linear_cross_entropy(x, weight, targets, bias)
    assert not silent.requires_grad
    assert torch.equal(silent, whole)
    wanted = torch.autograd.grad(whole, [x, weight, bias])  # type: ignore[list-item]
    frozen = [x.detach(), weight.detach(), bias.detach()]  # type: ignore[union-attr]
    assert not linear_cross_entropy(frozen[0], frozen[1], targets, frozen[2]).requires_grad
    for index in range(3):
        tensors = list(frozen)
        tensors[index] = tensors[index].clone().requires_grad_()
        (got,) = torch.autograd.grad(linear_cross_entropy(tensors[0], tensors[1], targets, tensors[2]), tensors[index])
        torch.testing.assert_close(got, wanted[index], rtol=1e-5, atol=1e-6)


def test_loss_can_be_used_twice() -> None:
    """Gradients of several losses accumulate, and one graph supports two backward passes."""
    x, weight, targets, _ = case(torch.float32)
    (linear_cross_entropy(x, weight, targets) + 2 * linear_cross_entropy(x * 2, weight, targets)).backward()
    first = (x.grad, weight.grad)
    x.grad = weight.grad = None
    (plain(x, weight, targets, None, 1.0, None, 0.0) + 2 * plain(x * 2, weight, targets, None, 1.0, None, 0.0)).backward()
    for got, wanted in zip(first, (x.grad, weight.grad), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    loss = linear_cross_entropy(x, weight, targets)
    once = torch.autograd.grad(loss, [x, weight], retain_graph=True)
    kept = [gradient.clone() for gradient in once]
    twice = torch.autograd.grad(loss * 3, [x, weight])
    for before, after, copy in zip(once, twice, kept, strict=True):
        assert torch.equal(before, copy)
        torch.testing.assert_close(after, 3 * before)


def test_weight_gradient_is_not_copied() -> None:
    x, weight, targets, _ = case(torch.float32)
    loss = linear_cross_entropy(x, weight, targets)
    assert loss.grad_fn is not None
    location = loss.grad_fn.saved_tensors[1].data_ptr()  # type: ignore[attr-defined]
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.data_ptr() == location


def test_logits_are_never_all_in_memory() -> None:
    """The largest allocated tensor has the rows of one chunk."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(tensor, Tensor) and tensor.shape[-1:] == (V,) and tensor.dim() == 2:
                    largest = max(largest, tensor.shape[0])
            return out

    x, weight = torch.randn(N, 3, requires_grad=True), torch.randn(V, 3, requires_grad=True)
    with Watch():
        linear_cross_entropy(x, weight, case(torch.float32)[2], softcap=3.0, z_loss=0.1).backward()
    assert 0 < largest <= 5


@pytest.mark.parametrize("autocast", [False, True])
def test_function_compiles(autocast: bool) -> None:
    x, weight, targets, bias = case(torch.float32)
    inputs: list[Tensor] = [x, weight, bias]  # type: ignore[list-item]

    def loss(x: Tensor) -> Tensor:
        return linear_cross_entropy(x * 2, weight, targets, bias, softcap=3.0)

    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)(x)
        wanted = loss(x)
    torch.testing.assert_close(compiled, wanted)
    for got, gradient in zip(torch.autograd.grad(compiled, inputs), torch.autograd.grad(wanted, inputs), strict=True):
        torch.testing.assert_close(got, gradient)


def test_meta_tensors_are_supported() -> None:
    x = torch.empty(N, E, device="meta", requires_grad=True)
    weight = torch.empty(V, E, device="meta", requires_grad=True)
    loss = linear_cross_entropy(x, weight, torch.zeros(N, dtype=torch.long, device="meta"))
    assert (loss.shape, loss.dtype, loss.device.type) == ((), torch.float32, "meta")
    gradients = torch.autograd.grad(loss, [x, weight])
    assert [gradient.shape for gradient in gradients] == [(N, E), (V, E)]


def test_zero_rows_are_accepted() -> None:
    x, weight = torch.empty(0, E, requires_grad=True), torch.ones(V, E, requires_grad=True)
    loss = linear_cross_entropy(x, weight, torch.zeros(0, dtype=torch.long))
    assert loss.item() == 0
    assert torch.equal(torch.autograd.grad(loss, weight)[0], torch.zeros(V, E))
