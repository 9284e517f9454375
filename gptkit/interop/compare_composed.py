"""Comparison of a model with an export of gptkit's own code: both are composed models, and no code is executed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gptkit.core.errors import ExternalModelError
from gptkit.core.registry import Registry
from gptkit.interop.checking import check_tensors
from gptkit.interop.compare import TOLERANCE, Drift, Reading, distance, is_part_of
from gptkit.interop.conversion import family_of, pair, read_model
from gptkit.interop.differences import differences, part_of
from gptkit.interop.generated import code_report
from gptkit.kinds.format import ExternalModel
from gptkit.model.gpt import GPT
from gptkit.model.merging import has_adapters, merged_model

__all__ = ["compare_composed"]


def compare_composed(
    native: GPT,
    external: ExternalModel,
    *,
    n_tokens: int = 64,
    tolerance: float = TOLERANCE,
    registry: Registry | None = None,
) -> Drift:
    """Run the same tokens through a model and through the one whose spec and weights an export with generated code has.

    Args:
        native: the model, in fp32 on the CPU; its adapters are compared as merged into the weights.
        external: the export.
        n_tokens: number of tokens.
        tolerance: maximum relative difference of equal parts.
        registry: where components are looked up; by default what is installed.

    Raises:
        ExternalModelError: its spec or weights are damaged, its code declares other tensors, or the two models have
            different numbers of layers.
    """
    if has_adapters(native.spec):
        native = merged_model(native)
    remark = f"{code_report(external)}; the weights were compared in the composed model, and the code was not executed"
    family, config = family_of(external, registry)
    spec = read_model(family, config, external.config_location, registry)
    other = GPT(spec)
    moves, stored = pair(family, other), external.tensors()
    names = check_tensors(family, other, moves, stored.entries, external.location)
    weights = {**dict(other.named_parameters()), **other.state_dict(keep_vars=True)}
    with torch.no_grad():
        for move in moves:
            weights[move.native].copy_(move.join([stored.get(names[name]).float() for name in move.external]))
    other = other.float().eval()
    if len(other.blocks) != len(native.blocks):
        raise ExternalModelError(f"the external model has {len(other.blocks)} layers, the run {len(native.blocks)}")
    longest = min(n_tokens, native.context_length, other.context_length)
    n_ids = min(native.vocab_size, other.vocab_size)
    ids_BT = torch.randint(n_ids, (1, longest), generator=torch.Generator().manual_seed(0))
    own, expected = _outputs(native.eval(), ids_BT), _outputs(other, ids_BT)
    readings = tuple(
        Reading(part, name, part, distance(tensor, expected[part][1]))
        for part, (name, tensor) in own.items()
        if part in expected
    )
    result = Drift(readings, tolerance, remark=remark)
    if result.first is None:
        return result
    part = result.first.part
    tensors = tuple(_different(native, other, part))
    return Drift(readings, tolerance, tensors, tuple(differences(native.spec, spec)), remark)


@torch.no_grad()
def _outputs(model: GPT, ids_BT: Tensor) -> dict[str, tuple[str, Tensor]]:
    """Return the component and the output of each part, in the order of computing."""
    result: dict[str, tuple[str, Tensor]] = {}
    handles = []

    def watch(module: torch.nn.Module, part: str, name: str) -> None:
        def keep(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            # Copies, as a later module may add to what this one returned.
            result[part] = name, (output if isinstance(output, Tensor) else output[0]).clone()

        handles.append(module.register_forward_hook(keep))

    watch(model.embedding, "embedding", model.spec.embedding.name)
    for index, (layer, block) in enumerate(zip(model.spec.layer_specs(), model.blocks, strict=True)):
        for name, child in block.named_children():
            spec = part_of(layer, name)
            if spec is not None:
                watch(child, f"blocks.{index}.{name}", spec.name)
        watch(block, f"blocks.{index}", layer.block.name)
    if model.spec.final_norm is not None:
        watch(model.final_norm, "final_norm", model.spec.final_norm.name)
    try:
        logits = model(ids_BT).logits
    finally:
        for handle in handles:
            handle.remove()
    assert logits is not None
    result["logits"] = model.spec.head.name, logits
    return result


def _different(native: GPT, other: GPT, part: str) -> Iterator[str]:
    """Yield the tensors of a part whose elements differ."""
    own, expected = native.state_dict(), other.state_dict()
    for name, tensor in own.items():
        # Tensors of different shapes are not equal.
        if is_part_of(part, name) and name in expected and not torch.equal(tensor, expected[name]):
            yield name
