"""Documentation page of the contracts that are not kinds: families, layouts, the forward context, caches."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from gptkit.core.registry import Registry
from gptkit.docs.places import DIRECTORY
from gptkit.files import validate_data
from gptkit.interop import layouts
from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.llama import LlamaFamily
from gptkit.kinds.context import BuildContext, LayerParts
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Layout
from gptkit.model.spec import ModelSpec
from gptkit.nn.after_step import AfterStep
from gptkit.nn.attention.mask import AttentionMask
from gptkit.nn.attention.softmax import SoftmaxAttention
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.blocks import BlockState
from gptkit.nn.cache.composite import CompositeState
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.cache.state import LayerState, Stateful, TokenState
from gptkit.nn.exchange import Exchange
from gptkit.nn.forward import Forward
from gptkit.reflect import prose
from gptkit.reflect.class_variables import class_variables
from gptkit.reflect.contract import members
from gptkit.testing.configurations import SMALL, base_config, hook_keys

__all__ = ["PAGE", "page"]

PAGE = "contracts.md"


def page(registry: Registry) -> str:
    """Return the page as Markdown, from the classes themselves."""
    reader, model = LlamaFamily(name="llama"), _model(registry)
    parts = [
        "# Contracts of families and of modules",
        f"The page of each [kind]({DIRECTORY}/index.md) has its contract. This page lists the other classes "
        "that families of external models, and modules of a model, use. It is generated from these classes.",
        "## Decoder: the base of families",
        f"`{Decoder.__module__}.Decoder` reads and writes the keys that most families share with Llama. A family overrides "
        "the hooks that differ. `read_…` hooks return a part of the model's spec as plain data; the keys are those that the "
        "hook reads from a configuration, with their defaults. `write_…` hooks return the keys of `config`.",
        prose.table(["hook", "returns", "keys"], list(_hooks(reader, model))),
        "A configuration is written with every key that the family reads. For a key that `config` does not return, the "
        "value that `model` uses is written.",
        "### Class variables",
        prose.table(["variable", "default", "meaning"], list(_variables(*_own(Decoder), FamilySpec))),
        "### Rules",
        "The rules of `Decoder.rules`. The first rule that matches a tensor applies, so a family puts its own rules first. "
        "A rule that matches no tensor has no effect.",
        prose.table(["native", "external", "layout"], list(_rules(reader, model))),
        "## Layouts",
        f"A layout of `{layouts.__name__}` defines how external tensors form a native one. `join` and `split` are inverses.",
        prose.table(["layout", "instance", "meaning"], list(_layouts())),
        "## ExternalConfig",
        prose.prose(inspect.cleandoc(ExternalConfig.__doc__ or "")),
        _methods(ExternalConfig),
    ]
    for cls, title in (
        (BuildContext, "BuildContext: what a component of a model receives when it is built"),
        (LayerParts, "LayerParts: the components of one layer"),
        (Forward, "Forward: the context of a forward pass"),
        (Exchange, "Exchange: values between layers"),
        (AttentionMask, "AttentionMask"),
        (SoftmaxAttention, "SoftmaxAttention: the base of softmax attention"),
        (Stateful, "Stateful: modules with a state"),
        (Allocation, "Allocation: the form of a state"),
        (LayerState, "LayerState: the state of one layer"),
        (TokenState, "TokenState: keys and values of one layer"),
        (RecurrentState, "RecurrentState: tensors of fixed size"),
        (BlockState, "BlockState: an entry for each block of positions"),
        (CompositeState, "CompositeState: several states of one layer"),
        (AfterStep, "AfterStep: modules that change after each optimizer step"),
    ):
        doc = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
        parts += [f"## {title}", f"In Python: `{cls.__module__}.{cls.__qualname__}`.", prose.prose(doc), _methods(cls)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _hooks(reader: FamilySpec, model: ModelSpec) -> Iterable[list[str]]:
    required = {"num_attention_heads": 4, "num_hidden_layers": 4, "vocab_size": 128}
    layers = model.layer_specs()
    for name, member in (item for cls in _own(Decoder) for item in vars(cls).items()):
        if not name.startswith(("read_", "write_")):
            continue
        summary = inspect.cleandoc(member.__doc__).split("\n\n")[0]
        if name.startswith("read_"):
            keys = hook_keys(reader, Decoder, name, required)
            shown = ", ".join(f"`{key}`" if not default else f"`{key}` ({default})" for key, default in keys.items())
        else:
            shown = ", ".join(f"`{key}`" for key in getattr(Decoder, name)(reader, layers))
        yield [f"`{name}`", prose.inline(summary), shown]


def _model(registry: Registry) -> ModelSpec:
    """Return a tiny model that `Decoder` reads."""
    reader = LlamaFamily(name="llama")
    config = ExternalConfig(base_config(reader, SMALL, {}, registry), registry=registry)
    return validate_data(reader.model(config), ModelSpec, registry)


def _own(cls: type[FamilySpec]) -> list[type[FamilySpec]]:
    """Return a class and those of its bases that are families."""
    return [each for each in cls.__mro__ if issubclass(each, FamilySpec) and each is not FamilySpec]


def _variables(*classes: type[Any]) -> Iterable[list[str]]:
    seen: set[str] = set()
    for variable in (each for cls in classes for each in class_variables(cls)):
        if variable.name not in seen:
            seen.add(variable.name)
            yield [f"`{variable.name}`", f"`{variable.default}`", prose.inline(variable.doc)]


def _rules(reader: FamilySpec, model: ModelSpec) -> Iterable[list[str]]:
    for rule in reader.rules(model):
        yield [f"`{rule.native}`", f"`{rule.external}`", "" if rule.layout is None else f"`{_instance(rule.layout)}`"]


def _instance(layout: Layout) -> str:
    return next((name for name, value in vars(layouts).items() if value is layout), type(layout).__name__)


def _layouts() -> Iterable[list[str]]:
    for name, value in vars(layouts).items():
        if not isinstance(value, type) or not issubclass(value, Layout) or value is Layout:
            continue
        instances = [f"`{each}`" for each, layout in vars(layouts).items() if type(layout) is value]
        arguments = str(inspect.signature(value)).replace("'", "")
        shown = ", ".join(instances) or f"`{name}{arguments.partition(' -> ')[0]}`"
        yield [f"`{name}`", shown, prose.inline(_paragraph(value))]


def _paragraph(cls: type[Any]) -> str:
    return " ".join(inspect.cleandoc(cls.__doc__ or "").split())


def _methods(cls: type[Any]) -> str:
    blocks: list[str] = []
    for member in members(cls):
        body: Sequence[str] = prose.prose(member.doc).splitlines() or [""]
        lines = [f":   {line}" if not index else f"    {line}" for index, line in enumerate(body)]
        blocks += [f"`{member.head}`{' *(required)*' if member.must else ''}", "\n".join(lines)]
    return "\n\n".join(blocks)
