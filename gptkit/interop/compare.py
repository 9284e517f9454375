"""Comparison of a model with an external model that it should equal: the same tokens through both, part by part."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.core.errors import ExternalModelError, RequirementError
from gptkit.core.registry import Registry
from gptkit.interop.conversion import family_of, pair, read_model, renamed
from gptkit.interop.differences import differences, part_of
from gptkit.interop.tensor_files import SINGLE, write_tensors
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.family import FamilySpec
from gptkit.kinds.format import ExternalModel
from gptkit.model.gpt import GPT
from gptkit.model.merging import has_adapters, merged_model
from gptkit.nn.attention.base import Attention
from gptkit.nn.block import Block
from gptkit.nn.short_convolution import ShortConvolution

__all__ = ["TOLERANCE", "Drift", "Reading", "compare", "distance", "is_part_of"]

TOLERANCE = 1e-3
# The eager path of Falcon with ALiBi adds the bias twice; for all other families it supports every feature.
_KERNELS = {"falcon": "sdpa"}
_LAST = {"attention": "output", "recurrence": "output", "feedforward": "down"}


@dataclass(frozen=True)
class Reading:
    """One part of the model, in the order of computing.

    Attributes:
        part: where it is in the model: ``blocks.3.attention``.
        name: the component: ``grouped-query``.
        external: the module of the external model; empty for the input of the first layer.
        distance: the largest difference of an element, relative to the external output's largest; infinite for NaNs and
            where shapes differ.
    """

    part: str
    name: str
    external: str
    distance: float


@dataclass(frozen=True)
class Drift:
    """Result of a comparison.

    Attributes:
        readings: every part that both have, in the order of computing.
        tolerance: the distance up to which a part counts as equal.
        tensors: of the first part beyond it, the tensors whose numbers differ from those in the files.
        differences: where the run's spec differs from the external model's configuration.
        remark: a sentence about what was compared; empty if transformers computed the external model.
    """

    readings: tuple[Reading, ...]
    tolerance: float
    tensors: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    remark: str = ""

    @property
    def first(self) -> Reading | None:
        """The first part that diverges; None where none does."""
        return _first(self.readings, self.tolerance)


def compare(
    native: GPT,
    external: ExternalModel,
    *,
    n_tokens: int = 64,
    tolerance: float = TOLERANCE,
    registry: Registry | None = None,
) -> Drift:
    """Run the same tokens through a model and through the external one in transformers, both in fp32.

    Args:
        native: the model, in fp32 on the CPU; its adapters are compared as merged into the weights.
        external: the model that it should equal, in any format.
        n_tokens: how many tokens; more than any attention window, to test windows.
        tolerance: the relative difference up to which a part counts as equal.
        registry: where families and components are looked up; by default what is installed.

    Raises:
        RequirementError: transformers is not installed.
        ExternalModelError: transformers cannot load the model, or the two have different numbers of layers or features.
    """
    if has_adapters(native.spec):
        native = merged_model(native)
    family, config = family_of(external, registry)
    nested = config is not external.config
    reference = _reference(family, external, config if nested else None, _KERNELS.get(family.model_type, "eager"))
    try:
        pairs = _Pairs(family, native, reference)
    except ExternalModelError as error:
        raise ExternalModelError(f"{external.location}: {error.message}", hint=error.hint) from None
    n_ids, longest = min(native.vocab_size, reference.config.vocab_size), min(n_tokens, native.context_length)
    ids_BT = torch.randint(n_ids, (1, longest), generator=torch.Generator().manual_seed(0))
    readings = tuple(_read(pairs, native, reference, ids_BT))
    first = _first(readings, tolerance)
    if first is None:
        return Drift(readings, tolerance)
    result: list[str] = []
    with contextlib.suppress(ExternalModelError):
        result = differences(native.spec, read_model(family, config, registry=registry))
    return Drift(readings, tolerance, tuple(_tensors(family, native, external, first.part)), tuple(result))


def _first(readings: Sequence[Reading], tolerance: float) -> Reading | None:
    return next((reading for reading in readings if not reading.distance <= tolerance), None)


def _reference(family: FamilySpec, external: ExternalModel, nested: Mapping[str, Any] | None, kernel: str) -> Any:
    """Return the external model as transformers builds it, from a temporary directory where it has none of its own.

    Args:
        nested: the configuration of the language model, where the external model is a larger one.
    """
    if external.directory is not None and nested is None:
        return _load(external.directory, external.location, kernel)
    with TemporaryDirectory() as temporary:
        directory = Path(temporary)
        head = {"model_type": family.model_type, "architectures": [family.architecture]}
        (directory / "config.json").write_text(json.dumps({**(nested or external.config), **head}), encoding="utf-8")
        stored = external.tensors()
        full = {renamed(family, name): name for name in stored.entries}
        names = {name: own for name, own in full.items() if not (nested and _skipped(family, name))}
        entries = {name: stored.entries[own] for name, own in names.items()}
        write_tensors(directory / SINGLE, entries, ((name, stored.get(own)) for name, own in names.items()))
        return _load(directory, external.location, kernel)


def _skipped(family: FamilySpec, name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in family.ignored)


def _load(directory: Path, location: str, kernel: str) -> Any:
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError:
        hint = "pip install 'transformers>=5'"
        raise RequirementError("the comparison needs transformers, which is not installed", hint=hint) from None
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    options = {"dtype": torch.float32, "attn_implementation": kernel, "local_files_only": True}
    try:
        return transformers.AutoModelForCausalLM.from_pretrained(directory, **options).eval()
    except Exception as error:  # whatever transformers, safetensors or a library below them raises
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExternalModelError(f"{location}: transformers cannot load it: {reason}") from None
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


class _Pairs:
    """Pairs of native and external modules that should return the same; the family's rules give the external names."""

    def __init__(self, family: FamilySpec, native: GPT, external: nn.Module) -> None:
        try:
            self.rules, self.factors = family.rules(native.spec), family.factors(native.spec)
        except (LookupError, AttributeError, TypeError, ValueError):
            raise ExternalModelError(f"the model's architecture is not that of family {family.name!r}") from None
        self.modules = dict(external.named_modules())
        stem, layered, _ = next(rule.external for rule in self.rules if rule.native.startswith("blocks.*")).partition("*")
        # The native module that is hooked, its path and component, and the name of the external module.
        self.matched: list[tuple[nn.Module, str, str, str]] = []
        self.blocks: list[str] = []
        self.embedding = ""
        if not layered:
            return  # no external module is a block, as the stacks of HRM-Text: only the logits are compared
        self.blocks = [name for name in self.modules if name.startswith(stem) and name[len(stem) :].isdigit()]
        if len(self.blocks) != len(native.blocks):
            raise ExternalModelError(f"the external model has {len(self.blocks)} layers, the run {len(native.blocks)}")
        for index, (layer, block) in enumerate(zip(native.spec.layer_specs(), native.blocks, strict=True)):
            for path, child in _parts(block):
                name = path.rpartition(".")[2]
                spec = part_of(layer, name)
                if spec is not None:
                    self._add(child, f"blocks.{index}.{path}", spec.name, self.blocks[index])
                elif isinstance(child, ShortConvolution):
                    self._add(child, f"blocks.{index}.{path}", layer.block.name, self.blocks[index])
                # Attentions side by side have an output projection each.
                for inner, module in child.named_children():
                    if isinstance(child, Attention) and isinstance(module, Attention):
                        self._add(module, f"blocks.{index}.{path}.{inner}", layer.attention.name, self.blocks[index])
            # Of several streams, programs return different ones; the parts of such a block are compared.
            if not any(getattr(each, "carries", ()) for each in block.modules()):
                self.matched.append((block, f"blocks.{index}", layer.block.name, self._whole(index, layer.block)))
        if native.spec.final_norm is not None:
            self._add(native.final_norm, "final_norm", native.spec.final_norm.name, "")
        # A norm of the embeddings may be a part of the first layer there.
        norm = self._external("embedding.norm")
        self.embedding = norm if norm.startswith(f"{self.blocks[0]}.") else ""

    def _whole(self, index: int, block: BlockSpec) -> str:
        """Return the external module with the output of a block: the layer, or the norm after it."""
        layer: str = self.blocks[index]
        steps = block.steps()
        if not steps or not steps[-1][0].after:
            return layer
        norm = self._external(f"blocks.{index}.feedforward_norm")
        return layer if not norm or norm.startswith(f"{layer}.") else norm

    def _add(self, module: nn.Module, part: str, name: str, block: str) -> None:
        # The output of a branch is that of its last projection, even where the external module also adds the residual.
        last = _LAST.get(part.rpartition(".")[2])
        leaf = None if last is None else getattr(module, last, None)
        factor = self._external(f"{part}.hidden_norm")
        if factor and factor not in self.modules:
            # A factor of the feed-forward itself there, after its last projection: the whole external module.
            hooked, other = module, factor.rpartition(".")[0]
        elif isinstance(module, ShortConvolution):
            # With what it is added to: the module that has the convolution.
            hooked, other = module, self._external(part).rpartition(".")[0]
            other = "" if other == block else other
        elif isinstance(leaf, nn.Module):
            hooked, other = leaf, self._external(f"{part}.{last}")
        elif last == "down":
            # Experts have no last projection of their own: the whole external module, whatever its name. Where they are
            # beside a dense feed-forward, in the layer itself, no module has the output of both.
            hooked, router = module, self._external(f"{part}.router.scores")
            inner = {router[len(block) + 1 :].partition(".")[0], "mlp", "feed_forward", "block_sparse_moe"}
            other = next((f"{block}.{each}" for each in sorted(inner) if f"{block}.{each}" in self.modules), "")
            other = "" if f"{block}.experts" in self.modules else other
        else:
            hooked, other = module, self._external(part)
        if other and other in self.modules:  # the name of the whole model is empty
            self.matched.append((hooked, part, name, other))

    def _external(self, part: str) -> str:
        names = next((match[1] for rule in self.rules if (match := rule.match(f"{part}.weight"))), ("",))
        return names[0].removesuffix(".weight") if len(names) == 1 else ""


def _parts(block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts of a block, and those of a block within it, by their paths."""
    for name, child in block.named_children():
        if isinstance(child, Block):
            yield from ((f"{name}.{path}", part) for path, part in _parts(child))
        else:
            yield name, child


def _read(pairs: _Pairs, native: GPT, external: Any, ids_BT: Tensor) -> Iterator[Reading]:
    seen: dict[str, Tensor] = {}
    expected: dict[str, Tensor] = {}
    handles = []

    # Copies, as some models add to what their modules returned.
    def keep(where: dict[str, Tensor], key: str) -> Any:
        return lambda module, inputs, output: where.__setitem__(key, _tensor(output).clone())

    def enters(module: nn.Module, inputs: Any, named: Any) -> None:
        vectors = inputs[0] if inputs else named["hidden_states"]
        expected["embedding"] = (vectors[0] if vectors.dim() > 3 else vectors).clone()  # the first of several streams

    handles.append(native.embedding.register_forward_hook(keep(seen, "embedding")))
    if pairs.embedding:
        handles.append(pairs.modules[pairs.embedding].register_forward_hook(keep(expected, "embedding")))
    elif pairs.blocks:
        handles.append(pairs.modules[pairs.blocks[0]].register_forward_pre_hook(enters, with_kwargs=True))
    for module, part, _, other in pairs.matched:
        handles.append(module.register_forward_hook(keep(seen, part)))
        handles.append(pairs.modules[other].register_forward_hook(keep(expected, part)))
    try:
        with torch.no_grad():
            # Dictionaries keep the order in which the hooks are called: that of computation.
            seen["logits"] = native(ids_BT).logits
            expected["logits"] = external(ids_BT, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    names = {part: (name, other) for _, part, name, other in pairs.matched}
    names |= {"embedding": (native.spec.embedding.name, ""), "logits": (native.spec.head.name, "")}
    for part, tensor in seen.items():
        if part in expected:
            yield Reading(part, *names[part], distance(tensor, expected[part] * pairs.factors.get(part, 1.0)))


def _tensor(output: Any) -> Tensor:
    result: Tensor = output if isinstance(output, Tensor) else output[0]
    return result


def distance(native: Tensor, external: Tensor) -> float:
    """Return the largest difference of an element, relative to the external output's largest."""
    if native.numel() != external.numel():
        return float("inf")
    difference = (native - external.reshape(native.shape)).abs().max() / external.abs().max().clamp(min=1e-30)
    return float("inf") if difference.isnan() else float(difference)


def _tensors(family: FamilySpec, native: GPT, external: ExternalModel, part: str) -> Iterator[str]:
    """Yield the tensors of a part whose elements differ from the external ones."""
    own, stored = native.state_dict(), external.tensors()
    names = {renamed(family, name): name for name in stored.entries}
    for move in pair(family, native):
        if not is_part_of(part, move.native) or any(name not in names for name in move.external):
            continue
        joined = move.join([stored.get(names[name]).float() for name in move.external])
        if not torch.equal(joined, own[move.native]):
            yield move.native


def is_part_of(part: str, name: str) -> bool:
    """Return whether a tensor belongs to a part of the model."""
    whole = "head" if part == "logits" else part
    # A block differs by itself only in how its branches are joined, which has no tensors.
    return name.startswith(f"{whole}.") and (whole.count(".") != 1 or not whole.startswith("blocks."))
