"""Conversion between a family and native models: configurations and tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from gptkit.core.errors import ExternalModelError, SpecError
from gptkit.core.registry import Registry, default_registry
from gptkit.core.registry.plugin import DISABLE
from gptkit.core.suggestions import did_you_mean
from gptkit.files import validate_data
from gptkit.interop.generated import generated_family
from gptkit.interop.layouts import SAME, Separate
from gptkit.interop.uncovered import reason
from gptkit.interop.wrappers import is_wrapper, language_config, within_wrapper
from gptkit.kinds.external_config import HARMLESS, ExternalConfig
from gptkit.kinds.family import FamilySpec, Layout, Rule
from gptkit.kinds.format import ExternalModel, TensorEntry, Tensors
from gptkit.model.gpt import GPT
from gptkit.model.spec import LayerSpec, ModelSpec
from gptkit.nn.index_limits import index_limits, index_problem

__all__ = [
    "Move",
    "external_entries",
    "external_tensors",
    "families",
    "family_of",
    "find_family",
    "pair",
    "pair_by",
    "read_model",
    "renamed",
    "write_config",
]

_NESTED = "text_config"
_OTHER_MODALITIES = frozenset(
    [
        "audio_config",
        "mm_tokens_per_image",
        "multimodal_projector_bias",
        "projector_bias",
        "projector_hidden_act",
        "projector_hidden_size",
        "spatial_merge_size",
        "vision_config",
        "vision_feature_layer",
    ]
)
_READING_ERRORS = (LookupError, AttributeError, TypeError, ValueError, ArithmeticError)


@dataclass(frozen=True)
class Move:
    """A native tensor and the external tensors that hold the same elements.

    Attributes:
        like: the native tensor on the meta device.
        limit: of indices, such as a table of experts, the number of choices; None for other tensors.
    """

    native: str
    external: tuple[str, ...]
    layout: Layout
    layer: LayerSpec | None
    like: Tensor
    limit: int | None = None

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the native tensor for the external ones.

        Raises:
            ExternalModelError: it has indices that are out of range.
        """
        native = self.layout.join(parts, self.layer)
        why = None if self.limit is None else index_problem(native, self.limit)
        if why is not None:
            hint = "Use an undamaged copy of the model, or correct its config.json."
            raise ExternalModelError(f"the tensor {', '.join(self.external)} {why}", hint=hint)
        return native

    def split(self, tensor: Tensor) -> list[Tensor]:
        """Return the external tensors for the native one."""
        return self.layout.split(tensor, self.layer)


def families(registry: Registry | None = None) -> dict[str, FamilySpec]:
    """Return every registered family by name."""
    entries = (registry or default_registry()).entries("family")
    return {name: cast("FamilySpec", entry.cls(name=name)) for name, entry in entries.items()}


def find_family(config: Mapping[str, Any], place: str, registry: Registry | None = None) -> FamilySpec:
    """Return the family of a configuration, by its `model_type`.

    Raises:
        ExternalModelError: no family of that type is installed, or several are; names those that are, or the reason.
    """
    registry = registry or default_registry()
    model_type = config.get("model_type")
    ranked = sorted(families(registry).values(), key=lambda family: -family.rank)
    known = {model_type: family for family in ranked for model_type in family.other_model_types()}
    known |= {family.model_type: family for family in ranked}
    claimants = [family.component_name() for family in ranked if family.model_type == model_type]
    if len(claimants) > 1:
        owners = {name: registry.entry("family", name).plugin for name in claimants}
        both = " and ".join(f"{name!r} of {owner.provenance}" for name, owner in owners.items())
        disabled = next(owner.distribution for owner in owners.values() if not owner.built_in)
        raise ExternalModelError(
            f"{place}: several families have the model_type {model_type!r}: {both}",
            hint=f"Uninstall one, or disable one with {DISABLE}={disabled}.",
        )
    if not isinstance(model_type, str):
        raise ExternalModelError(
            f"{place} has no 'model_type'", hint="Give the directory of a model, as transformers saves it."
        )
    if model_type not in known:
        why = reason(config)
        inner = config.get(_NESTED)
        language = inner.get("model_type") if isinstance(inner, Mapping) else None
        if why is None and isinstance(language, str) and language in known:
            why = f"its language model is of the type {language!r}, which is read from a directory of its own"
        what = why or did_you_mean(model_type, sorted(known), label="available")
        clashes = "; ".join(registry.clashes("family").values())
        raise ExternalModelError(
            f"{place}: no installed family has the model_type {model_type!r}; {what}", hint=clashes or None
        )
    return known[model_type]


def family_of(external: ExternalModel, registry: Registry | None = None) -> tuple[FamilySpec, Mapping[str, Any]]:
    """Return the family of an external model, and the configuration that the family reads.

    Raises:
        ExternalModelError: its family is not installed; names those that are.
    """
    generated = generated_family(external)
    if generated is not None:
        return generated, external.config
    if external.family is None and is_wrapper(external.config):
        language = language_config(external.config, external.tensors().entries)
        return within_wrapper(find_family(language, external.config_location, registry)), language
    if external.family is None:
        family = find_family(external.config, external.config_location, registry)
        inner = external.config.get(_NESTED)
        if isinstance(inner, Mapping) and inner.get("model_type") in {
            each.model_type for each in families(registry).values()
        }:
            # Multimodal models of one type may have language models of different families (Mistral 3).
            family = find_family(inner, external.config_location, registry)
        return family, _language_model(family, external)
    known = families(registry)
    if external.family not in known:
        what = did_you_mean(external.family, sorted(known), label="available")
        raise ExternalModelError(f"{external.location} is of the family {external.family!r}, which is not installed; {what}")
    return known[external.family], external.config


def _language_model(family: FamilySpec, external: ExternalModel) -> Mapping[str, Any]:
    """Return the configuration of the language model, which multimodal models have below `text_config`."""
    inner = external.config.get(_NESTED)
    if not isinstance(inner, Mapping):
        return external.config
    outer = ExternalConfig(external.config, external.config_location, HARMLESS | family.harmless | _OTHER_MODALITIES)
    outer.value(_NESTED)
    for key in external.config:
        # Ids of tokens that stand for images and the like.
        if key.endswith(("_token_id", "_token_index")):
            outer.value(key)
    tied = {"tie_word_embeddings": outer.flag("tie_word_embeddings")} if "tie_word_embeddings" in outer else {}
    outer.close()
    return {**tied, **inner}


def read_model(
    family: FamilySpec, data: Mapping[str, Any], place: str = "config.json", registry: Registry | None = None
) -> ModelSpec:
    """Return the spec of the model that a configuration describes.

    Raises:
        ExternalModelError: a key is unknown, or requires a feature that gptkit does not support.
    """
    config = ExternalConfig(data, place, HARMLESS | family.harmless, registry)
    model = _described(family, config)
    config.close()
    try:
        return validate_data(model, ModelSpec, registry)
    except SpecError as error:
        raise ExternalModelError(f"{place} describes a model that cannot be built:\n{error.message}") from None


def write_config(family: FamilySpec, model: ModelSpec, registry: Registry | None = None) -> dict[str, Any]:
    """Return the configuration of a model as an export has it: every key that the family reads is written.

    `FamilySpec.config` may omit keys that have their default. The class that loads the export may have another default,
    so the value that the family uses is written for each key that it reads and that is missing.

    Raises:
        ExternalModelError: the family cannot read the configuration that it wrote.
        LookupError, AttributeError, TypeError, ValueError: the family cannot express the model.
    """
    written = family.config(model)
    if "num_attention_heads" in written and not any(layer.attention.accepts for layer in model.layer_specs()):
        # A hybrid without a layer that attends: the cache of transformers counts tokens in those only.
        written["use_cache"] = False
    config = ExternalConfig(written, f"family {family.name!r}", HARMLESS | family.harmless, registry)
    _described(family, config)
    return config.completed()


def _described(family: FamilySpec, config: ExternalConfig) -> dict[str, Any]:
    """Return the model that a configuration describes, as plain data."""
    try:
        model = family.model(config)
        config.confirm(family.redundant, family.synonyms)
        return model
    except _READING_ERRORS as error:
        raise ExternalModelError(
            f"{config.place}: family {family.name!r} cannot read it: {type(error).__name__}: {error}"
        ) from None


def pair(family: FamilySpec, model: GPT) -> list[Move]:
    """Pair each native tensor with its external tensors.

    Raises:
        ExternalModelError: no rule matches a native tensor.
    """
    return pair_by(family.rules(model.spec), model, f"family {family.name!r}")


def pair_by(rules: Sequence[Rule], model: GPT, who: str) -> list[Move]:
    """Pair each native tensor with external tensors by the rules of `who`, a family or another one, for messages.

    Raises:
        ExternalModelError: no rule matches a native tensor.
    """
    layers, limits = model.spec.layer_specs(), index_limits(model)
    moves: list[Move] = []
    # A parameter that is shared has one name; of buffers, those that checkpoints hold.
    saved = model.state_dict(keep_vars=True)
    stored = {**dict(model.named_parameters()), **{name: saved[name] for name, _ in model.named_buffers() if name in saved}}
    for name, parameter in stored.items():
        result = next(((rule, match) for rule in rules if (match := rule.match(name)) is not None), None)
        if result is None:
            raise ExternalModelError(f"{who} has no rule for {name}")
        rule, (index, external) = result
        layout = rule.layout or SAME
        if rule.per_expert:
            n_experts = parameter.shape[0]
            external = tuple(each.replace("#", str(expert)) for expert in range(n_experts) for each in external)
            layout = Separate(layout, n_experts)
        layer = None if index is None else layers[index]
        # Of whole numbers, such as a table of experts, the type matters: files must hold whole numbers too.
        dtype = None if parameter.is_floating_point() else parameter.dtype
        like = torch.empty(parameter.shape, device="meta", dtype=dtype)
        moves.append(Move(name, external, layout, layer, like, limits.get(name)))
    return moves


def renamed(family: FamilySpec, name: str) -> str:
    """Return an external tensor's name in the family's own models (`FamilySpec.prefixes` and `renames`)."""
    for prefix, own in family.prefixes.items():
        if name.startswith(prefix):
            name = own + name.removeprefix(prefix)
            break
    for pattern, replacement in family.renames:
        name = re.sub(pattern, replacement, name)
    return name


def external_entries(moves: Sequence[Move], native: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
    """Return shape and dtype of the external tensors, in the order of the moves."""
    return {
        name: TensorEntry(tuple(part.shape), native[move.native].dtype)
        for move in moves
        for name, part in zip(move.external, move.split(move.like), strict=True)
    }


def external_tensors(moves: Sequence[Move], native: Tensors) -> Iterator[tuple[str, Tensor]]:
    """Return the external tensors one by one, in the order of `external_entries`."""
    for move in moves:
        yield from zip(move.external, move.split(native.get(move.native)), strict=True)
