"""Checks of families of external models, with the model that a configuration of a few sizes gives."""

from __future__ import annotations

from typing import cast

import torch

from gptkit.core.errors import ExternalModelError, SpecError
from gptkit.files import validate_data
from gptkit.interop.conversion import pair
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec
from gptkit.model.gpt import GPT
from gptkit.model.spec import PARTS, ModelSpec
from gptkit.testing.check import Checks, expect, skip
from gptkit.testing.subject import Subject

__all__ = ["checks"]

checks = Checks()

_WHOLE = ("context_length", "d_model", "n_layers", "vocab_size", "embedding", "final_norm", "head")
_TINY = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), 4),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim"), 96),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 64),
    "vocab_size": 128,
}
"""Sizes under the names that most configurations use."""


def _model(subject: Subject) -> ModelSpec:
    """A tiny model of the family, whatever else it has by its own defaults."""
    try:
        return validate_data(_family(subject).model(ExternalConfig(_TINY)), ModelSpec)
    except (ExternalModelError, SpecError) as error:
        skip(f"a tiny model cannot be built from common sizes alone: {error.message}")


def _family(subject: Subject) -> FamilySpec:
    return cast("FamilySpec", subject.spec)


@checks.add(
    "says-who-it-is", "A directory's config.json is matched to a family by these, and they are written into an export."
)
def says_who_it_is(subject: Subject) -> None:
    family = _family(subject)
    for fact in ("model_type", "architecture"):
        value = getattr(family, fact, None)
        expect(isinstance(value, str) and value, f"{fact} is {value!r}; the text in config.json belongs there")


@checks.add("config-comes-back", "An export is made only if the configuration that it writes reads back as the same model.")
def config_comes_back(subject: Subject) -> None:
    family, model = _family(subject), _model(subject)
    config = family.config(model)
    again = validate_data(family.model(ExternalConfig(config)), ModelSpec)
    # The components are compared layer by layer, since a pattern can be written in several ways.
    fields = [name for name in _WHOLE if getattr(again, name) != getattr(model, name)]
    pairs = zip(*_layers(again, model), strict=True)
    fields += [f"layer {index}" for index, pair in enumerate(pairs) if pair[0] != pair[1]]
    expect(not fields, f"written and read back, {', '.join(fields)} of the model is another: {config}")


def _layers(*models: ModelSpec) -> list[list[list[object]]]:
    return [[[getattr(layer, part) for part in PARTS] for layer in model.layer_specs()] for model in models]


@checks.add("rules-cover-every-tensor", "A tensor without a rule is neither read nor written, so the model is another.")
def rules_cover_every_tensor(subject: Subject) -> None:
    family, model = _family(subject), _model(subject)
    rules = family.rules(model)
    for name in GPT(model, device="meta").state_dict():
        expect(any(rule.match(name) is not None for rule in rules), f"no rule is about the tensor {name!r}")


@checks.add("layouts-are-inverse", "An export writes what `split` gives, so `join` must restore the native tensor from it.")
def layouts_are_inverse(subject: Subject) -> None:
    model = GPT(_model(subject), device="meta")
    try:
        moves = pair(_family(subject), model)
    except ExternalModelError as error:
        skip(f"not every tensor has a rule: {error.message}")
    for move in moves:
        native = torch.arange(move.like.numel(), dtype=torch.int64).view(move.like.shape)
        parts = move.split(native)
        expect(len(parts) == len(move.external), f"the layout of {move.native!r} splits it into {len(parts)} tensors")
        total = sum(part.numel() for part in parts)
        expect(total == native.numel(), f"the layout of {move.native!r} splits {native.numel()} elements into {total}")
        joined = move.join([part.contiguous() for part in parts])
        expect(joined.shape == native.shape, f"split and joined again, {move.native!r} has the shape {list(joined.shape)}")
        expect(torch.equal(joined, native), f"split and joined again, {move.native!r} has its elements in another order")
