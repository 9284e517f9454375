"""Checks of components that are modules of the model, in a tiny GPT.

Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gptkit.model.gpt import GPT
from gptkit.nn.recompute import Recompute
from gptkit.testing.check import Checks, ContractError, expect, same
from gptkit.testing.subject import CONTEXT_LENGTH, Subject, stirred, token_ids

__all__ = ["checks"]

checks = Checks()

_LARGE = 100_000
_SMALL = 4096


class _Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Mode that records allocations outside of the meta device."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.device.type != "meta":
                self.largest = max(self.largest, leaf.numel())
        return out


@checks.add(
    "builds-on-meta",
    "Sizes of a model are computed, and rejected if they cannot fit, before allocation.",
    prerequisite=True,
)
def builds_on_meta(subject: Subject) -> None:
    with _Allocations() as seen:  # type: ignore[no-untyped-call]
        model = subject.make(device="meta", vocab_size=_LARGE, context_length=_LARGE)
    real = [name for name, tensor in _tensors(model).items() if tensor.device.type != "meta"]
    expect(not real, f"built on the meta device, these have memory all the same: {', '.join(real)}")
    expect(
        seen.largest <= _SMALL,
        f"built on the meta device for {model.context_length:,} tokens, a tensor of {seen.largest:,} numbers was allocated; "
        "make tables on first use, or without naming a device",
    )
    for module in model.modules():
        for name, value in vars(module).items():
            expect(
                not isinstance(value, Tensor),
                f"the attribute {name!r} of {type(module).__name__} is a tensor, which remains on the meta device, without "
                "values; compute it in the forward pass or on first use, or register it as a buffer",
            )


@checks.add(
    "same-seed-same-result", "Reproducible runs require that weights depend on the seed, on names and on shapes only."
)
def same_seed_same_result(subject: Subject) -> None:
    before = subject.spec.model_dump()
    torch.manual_seed(1)
    one = subject.make(seed=3)
    torch.manual_seed(2)
    other = subject.make(seed=3)
    expect(
        subject.spec.model_dump() == before,
        f"building changed the spec itself: it was {before}, and is {subject.spec.model_dump()}",
    )
    first, second = _tensors(one), _tensors(other)
    expect(first.keys() == second.keys(), f"built twice, the tensors differ: {sorted(first.keys() ^ second.keys())}")
    for name, tensor in first.items():
        expect(
            tensor.shape == second[name].shape, f"built twice, {name} has two shapes: {tensor.shape}, {second[name].shape}"
        )
        alike = torch.equal(tensor, second[name])
        expect(alike, f"built twice with one seed, {name} is initialized differently; draw from the generator that is given")
    ids = token_ids(2, 12)
    with torch.no_grad():
        same(other.eval()(ids).logits, one.eval()(ids).logits, "built twice with one seed, it computes other logits")


@checks.add("eval-is-deterministic", "Evaluation and generation must be deterministic: dropout acts in training only.")
@torch.no_grad()
def eval_is_deterministic(subject: Subject) -> None:
    ids_BT, model = token_ids(2, 12), subject.model()
    torch.manual_seed(1)
    generator = torch.get_rng_state()
    once_BTV = model(ids_BT).logits
    drawn = not torch.equal(torch.get_rng_state(), generator)
    for seed in range(2, 6):  # noise may leave most calls as they are
        torch.manual_seed(seed)
        same(model(ids_BT).logits, once_BTV, "evaluating twice, the second call's logits are not the first's")
    remedy = "draw in training only; with a cache of other lengths, the numbers that sampling draws would change"
    expect(not drawn, f"evaluating draws random numbers from torch's generator; {remedy}")


@checks.add("plain-loss-in-eval", "Validation losses are compared between models, so auxiliary losses belong to training.")
@torch.no_grad()
def plain_loss_in_eval(subject: Subject) -> None:
    added = sorted(subject.model()(token_ids(2, 12), token_ids(2, 12, seed=1)).losses)
    expect(not added, f"in evaluation it adds the auxiliary losses {', '.join(added)}; add them if self.training")


@checks.add("state-dict", "Checkpoints hold the state dict only, so it must contain all learned values.")
@torch.no_grad()
def state_dict(subject: Subject) -> None:
    model, ids = subject.model(), token_ids(2, 12)
    stored = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(11)
    fresh = subject.make(seed=5).double().eval()
    fresh(ids)  # what it computes from its first weights, it must compute again
    missing = fresh.load_state_dict(safetensors.torch.load(safetensors.torch.save(stored)), strict=False)
    expect(not missing.missing_keys and not missing.unexpected_keys, f"saved and loaded: {missing}")
    same(fresh(ids).logits, model(ids).logits, "saved, and loaded into a model of another seed, it computes other logits")


@checks.add("deep-copy", "Training may copy a model (averages, references); copies must be complete and independent.")
@torch.no_grad()
def deep_copy(subject: Subject) -> None:
    model, ids = subject.model(), token_ids(2, 12)
    before = model(ids).logits
    copied = copy.deepcopy(model)
    same(copied(ids).logits, before, "a deep copy computes other logits")
    for parameter in copied.parameters():
        parameter.mul_(0.5)
    same(model(ids).logits, before, "changing a deep copy's weights changed what the original computes")
    torch.manual_seed(11)
    other = stirred(subject.make(seed=5), seed=8).double().eval()
    copied.load_state_dict(copy.deepcopy(other.state_dict()), strict=False)
    same(copied(ids).logits, other(ids).logits, "a deep copy that is given other weights computes with some of its old ones")


@checks.add("bf16-and-fp32", "Models run in both: results have the input's dtype, are finite, and approximately equal.")
@torch.no_grad()
def bf16_and_fp32(subject: Subject) -> None:
    model, ids = subject.make().eval(), token_ids(2, 16)
    exact = model(ids).logits
    expect(exact.dtype == torch.float32, f"a model in fp32 gives logits in {exact.dtype}")
    expect(exact.isfinite().all(), "a model in fp32 gives logits that are not finite")
    rough = _in_bf16(copy.deepcopy(model).bfloat16(), ids)
    expect(rough.dtype == torch.bfloat16, f"a model in bf16 gives logits in {rough.dtype}; return the input's dtype")
    expect(rough.isfinite().all(), "a model in bf16 gives logits that are not finite")
    error = float((rough.float() - exact).norm() / exact.norm().clamp_min(1e-6))
    expect(error < 0.15, f"bf16 and fp32 differ by {error:.0%} of the logits' size; compute in fp32 where precision matters")


def _in_bf16(model: GPT, ids: Tensor) -> Tensor:
    """Return the logits of a model in bf16; an error of torch names the modules that return another dtype."""
    others: list[str] = []

    def note(module: nn.Module, args: Any, output: Any) -> None:
        vectors = [each for each in args if isinstance(each, Tensor) and each.is_floating_point()]
        if vectors and isinstance(output, Tensor) and vectors[0].dtype == torch.bfloat16 != output.dtype:
            others.append(f"{type(module).__name__} returned {output.dtype}")

    for module in model.modules():
        module.register_forward_hook(note)
    try:
        logits: Tensor = model(ids).logits
    except RuntimeError as error:
        seen = f": {others[0]} for a torch.bfloat16 input; return the input's dtype" if others else ""
        raise ContractError(f"in bf16 it raised {type(error).__name__}{seen} ({str(error).splitlines()[0]})") from error
    return logits


@checks.add("trains-in-bf16", "A training computes products in bf16 by default, beside weights in fp32 (autocast).")
def trains_in_bf16(subject: Subject) -> None:
    ids, targets = token_ids(2, 16), token_ids(2, 16, seed=1)
    # The inputs of a norm are in fp32 at the beginning of a block, and in bf16 after a branch.
    for block in ["pre-norm", *(["sandwich"] if subject.kind == "norm" else [])]:
        model = (subject.make() if subject.kind == "block" else subject.make(block=block)).train()
        torch.manual_seed(0)
        exact = model(ids, targets).loss.detach()
        torch.manual_seed(0)
        try:
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(ids, targets).loss
            loss.backward()
        except RuntimeError as error:
            expect(False, f"a training step in bf16 ends with: {error}; convert tensors to one dtype before an operation")
        expect(loss.isfinite(), f"the loss of a training step in bf16 is {float(loss.detach())}")
        gap = float((loss.detach() - exact).abs() / exact.abs().clamp_min(1e-6))
        expect(gap < 0.05, f"the loss in bf16 differs by {gap:.0%} from fp32's; compute in fp32 where precision matters")
        for name, parameter in model.named_parameters():
            gradient = parameter.grad
            expect(gradient is None or bool(gradient.isfinite().all()), f"in bf16 the gradient of {name} is not finite")


@checks.add("gradients", "A weight without gradient is never trained, and a gradient that is not finite ends a training.")
def gradients(subject: Subject) -> None:
    for companion in subject.companions():
        model = subject.model(companion)
        try:
            model.train()
            loss = model(token_ids(3, 40), token_ids(3, 40, seed=1)).loss
            expect(loss.ndim == 0 and bool(loss.isfinite()), f"the loss in training is {loss}")
            loss.backward()
            for name, parameter in model.named_parameters():
                if not parameter.requires_grad:
                    continue
                gradient = parameter.grad
                expect(gradient is not None and bool((gradient != 0).any()), f"no gradient reaches {name}")
                expect(gradient is not None and bool(gradient.isfinite().all()), f"the gradient of {name} is not finite")
        finally:
            model.eval().zero_grad()


@checks.add(
    "recomputes", "Activation checkpointing runs a block twice, on forks of the context; its gradients must stay the same."
)
def recomputes(subject: Subject) -> None:
    for companion in subject.companions():
        model = subject.model(companion)
        try:
            kept = _gradients(model.train(), "none")
            again = _gradients(model, "blocks")
        finally:
            model.recompute = "none"
            model.eval().zero_grad()
        # A gradient that is not finite is reported by the check `gradients`.
        kept = {name: gradient for name, gradient in kept.items() if gradient.isfinite().all()}
        largest = max((float(gradient.abs().max()) for gradient in kept.values()), default=0.0)
        for name, gradient in kept.items():
            error = float((again[name] - gradient).abs().max()) if name in again else math.inf
            expect(error <= 1e-6 * largest, f"with activation checkpointing, the gradient of {name} differs by {error:.3g}")


def _gradients(model: GPT, recompute: Recompute) -> dict[str, Tensor]:
    model.recompute = recompute
    model.zero_grad()
    torch.manual_seed(5)
    loss = model(token_ids(3, 40), token_ids(3, 40, seed=1)).loss
    assert loss is not None
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@checks.add("compiles", "Compiled models (torch.compile) train faster, and must compute the same.", slow=True)
@torch.no_grad()
def compiles(subject: Subject) -> None:
    model = subject.make().eval()
    for length in (16, CONTEXT_LENGTH // 2):
        ids = token_ids(2, length)
        torch.compiler.reset()
        compiled = torch.compile(model, backend="aot_eager")
        same(compiled(ids).logits, model(ids).logits, f"compiled, it computes other logits for {length} tokens", 1e-4)


def _tensors(model: GPT | nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
