"""Component under test, and the tiny model it is placed in.

Shapes: B batch, T tokens, E model width.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from gptkit.core.component import Component
from gptkit.core.errors import SpecError, TokenizerError
from gptkit.core.registry import Registry, default_registry
from gptkit.core.resolution import resolve
from gptkit.files import validate_data
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.initializer import InitializerSpec
from gptkit.kinds.position import PositionSpec
from gptkit.kinds.tokenizer import Tokenizer, TokenizerSpec
from gptkit.model.gpt import GPT
from gptkit.model.initialize import initialize
from gptkit.model.spec import ModelSpec
from gptkit.nn.exchange import MissingPublisherError
from gptkit.nn.forward import Forward
from gptkit.nn.other_run import other_runs
from gptkit.testing.check import ContractError, skip
from gptkit.testing.texts import CORPUS, write_corpus

__all__ = [
    "CONTEXT_LENGTH",
    "D_HEAD",
    "D_MODEL",
    "VOCAB",
    "Subject",
    "randomized",
    "stirred",
    "stirred_matrices",
    "token_ids",
]

M = TypeVar("M", bound=nn.Module)

D_MODEL, D_HEAD, N_LAYERS, CONTEXT_LENGTH, VOCAB = 32, 16, 2, 48, 29

_INSIDE: Mapping[str, tuple[str, dict[str, Any]]] = {
    "activation": ("feedforward", {"name": "mlp", "expansion": 2}),
    "rotary-scaling": ("position", {"name": "rotary"}),
    "router": ("feedforward", {"name": "experts", "n_experts": 8, "expert": {"name": "mlp", "d_hidden": 8}}),
}
_FIELD = {"rotary-scaling": "scaling"}
_COMPANIONS = {"rotate": "rotary", "bias": "alibi", "content_bias": "shaw", "value_bias": "shaw"}
"""A position with each hook that an attention may accept."""


class Subject:
    """One configured component. Built objects are cached between checks.

    Args:
        spec: the component.
        registry: where it and the components around it are looked up; by default what is installed.
    """

    _latest: ClassVar[Subject | None] = None

    def __init__(self, spec: Component, registry: Registry | None = None) -> None:
        self.spec: Any = spec
        self.registry = registry or default_registry()
        self.failed: dict[str, bool] = {}
        """Whether prerequisites of other checks fail, by the name of the check; `Check.fails` adds them."""
        self._models: dict[tuple[str, bool], GPT] = {}
        self._randomized: dict[tuple[str, int], GPT] = {}

    @classmethod
    def of(cls, spec: Component, registry: Registry | None = None) -> Subject:
        """Return the subject of a spec, cached for consecutive calls with the same spec."""
        registry = registry or default_registry()
        if cls._latest is None or cls._latest.spec is not spec or cls._latest.registry is not registry:
            cls._latest = cls(spec, registry)
        return cls._latest

    def other(self, kind: str, name: str) -> Any:
        """Return another component with its defaults."""
        return self.registry.component(kind, name).model_validate({"name": name}, context={"registry": self.registry})

    @property
    def kind(self) -> str:
        return str(self.spec.kind)

    @property
    def label(self) -> str:
        """``attention multi-head (window=4)``."""
        spec = self.spec
        fields = type(spec).model_fields
        needed = {name: getattr(spec, name) for name, info in fields.items() if info.is_required()}
        plain = type(spec).model_validate({"name": spec.name, **needed}, context={"registry": self.registry})
        shown = [name for name in fields if name in needed or getattr(spec, name) != getattr(plain, name)]
        changed = [f"{name}={_short(getattr(spec, name))}" for name in shown]
        return f"{self.kind} {spec.name}" + (f" ({', '.join(changed)})" if changed else "")

    # -- in a tiny GPT -------------------------------------------------------------------------------------------

    def companions(self) -> list[str]:
        """Return the positions that an attention accepts, or one entry for other components."""
        spec = self.spec
        if not isinstance(spec, AttentionSpec):
            return ["none" if self.kind == "embedding" else "rotary"]
        hooks = [hook for hook in _COMPANIONS if hook in spec.accepts]
        result = ["none", "learned", *(_COMPANIONS[hook] for hook in hooks)]
        positions = {name: self.registry.component("position", name) for name in result}
        takes = [name for name, position in positions.items() if _hooks(position) <= spec.accepts]
        return takes if len(takes) < 4 else ["none", *takes[2:]]

    def read(self, layout: Mapping[str, Any]) -> ModelSpec:
        """Return the model's spec, with components from the subject's registry.

        Raises:
            SpecError: the layout is invalid.
        """
        return validate_data(layout, ModelSpec, self.registry)

    def layout(self, companion: str = "rotary", *, window: bool = False, **changes: Any) -> dict[str, Any]:
        """Return the model section of a spec that contains the component."""
        model: dict[str, Any] = {
            "d_model": D_MODEL,
            "n_layers": N_LAYERS,
            "context_length": CONTEXT_LENGTH,
            "position": companion,
            "attention": {"name": "multi-head", "n_heads": 2, "d_head": D_HEAD},
            "feedforward": {"name": "mlp", "expansion": 2},
        }
        spec = self.windowed if window else self.spec
        if self.kind in _INSIDE:
            place, outer = _INSIDE[self.kind]
            model[place] = {**outer, _FIELD.get(self.kind, self.kind): spec}
        else:
            model[self.kind] = spec
        if isinstance(spec, PositionSpec):
            model["attention"] = self._attention_for(spec) or model["attention"]
        return {**model, **changes, **type(spec).checked_with}

    def _attention_for(self, position: PositionSpec) -> dict[str, Any] | None:
        """Return an attention that accepts a position: multi-head, or the first registered one."""
        for name in ["multi-head", *self.registry.names("attention")]:
            if _hooks(position) <= cast("type[AttentionSpec]", self.registry.component("attention", name)).accepts:
                return {"name": name, "n_heads": 2, "d_head": D_HEAD} if name == "multi-head" else {"name": name}
        return None

    def make(self, companion: str | None = None, *, window: bool = False, seed: int = 0, **how: Any) -> GPT:
        """Return a tiny GPT that contains the component.

        Args:
            companion: one of `companions`; by default the first that is not "none", if there is one.
            window: with the component's `window` set to 5 tokens.
            how: `device` and `dtype` of the model, and changes of the layout.

        Other runs that the component uses are replaced by a tiny model, except on the meta device.
        """
        options = {name: how.pop(name) for name in ("device", "dtype") if name in how}
        vocab = how.pop("vocab_size", VOCAB)
        layout = self.layout(companion or self.companions()[-1], window=window, **how)
        layout["context_length"] = self._within_reach(layout)
        try:
            model = GPT(self.read(layout), vocab, seed=seed, **options)
            return model if model.device.type == "meta" else _with_runs(model)
        except SpecError as error:
            sizes = f"d_model {layout['d_model']}, context_length {layout['context_length']}"
            raise ContractError(
                f"it cannot be put into a tiny model ({sizes}): {error.message}. Give `examples` whose sizes fit"
            ) from error
        except MissingPublisherError as error:
            raise ContractError(
                f"{error.message}; name the part of the model that does in the spec class: "
                'checked_with = {"block": "name-of-a-block"}'
            ) from error

    def _within_reach(self, layout: Mapping[str, Any]) -> int:
        """Return the context length required by a layout, or the position's maximum; at least the kit's default."""
        asked = int(layout["context_length"])
        if not isinstance(self.spec, PositionSpec) or asked <= CONTEXT_LENGTH:
            return asked
        limit = self.spec.max_positions(BuildContext(D_MODEL, asked, N_LAYERS, VOCAB))
        return asked if limit is None else max(CONTEXT_LENGTH, min(asked, limit))

    def model(self, companion: str | None = None, *, window: bool = False) -> GPT:
        """Return the model of `make` with randomly changed weights, in fp64 and evaluation mode; cached."""
        key = (companion or self.companions()[-1], window)
        if key not in self._models:
            self._models[key] = stirred(self.make(companion, window=window)).double().eval()
        return self._models[key]

    def models(self) -> Iterator[tuple[str, GPT]]:
        """Yield the model with each companion, and once with a window, each with its name for messages."""
        for companion in self.companions():
            named = f"with position {companion!r}" if isinstance(self.spec, AttentionSpec) else "in a tiny model"
            yield named, self.model(companion)
        if self.windowed is not None:
            yield "with window 5", self.model(window=True)

    def leak_models(self) -> Iterator[tuple[str, GPT]]:
        """`models`, each also twice with large random weights: a leak through learned weights may appear only there."""
        for named, model in self.models():
            yield named, model
            for seed in (1, 2):
                if (named, seed) not in self._randomized:
                    self._randomized[named, seed] = randomized(copy.deepcopy(model), seed)
                yield f"{named}, with large random weights", self._randomized[named, seed]

    @cached_property
    def windowed(self) -> Any:
        """The component with a window of 5 tokens; None without a field `window`."""
        if not isinstance(self.spec, AttentionSpec) or "window" not in type(self.spec).model_fields:
            return None
        try:
            return self.spec.replace(window=5)
        except ValidationError:
            return None

    # -- by itself -----------------------------------------------------------------------------------------------

    @cached_property
    def model_spec(self) -> ModelSpec:
        """The tiny model's spec, resolved."""
        return self.make(device="meta").spec

    @cached_property
    def context(self) -> BuildContext:
        """The build context of the component."""
        spec = self.model_spec
        return spec.context(VOCAB, layer=spec.head_parts() if self.kind == "head" else spec.layer_specs()[0].parts(0))

    @cached_property
    def resolved(self) -> Any:
        """The resolved spec."""
        return resolve(self.spec, self.context)

    def module(self, **how: Any) -> nn.Module:
        """Return the runtime module with randomly changed weights, in fp64 and evaluation mode."""
        module: nn.Module = stirred(self.fresh(**how)).double().eval()
        return module

    def fresh(self, **how: Any) -> nn.Module:
        """Return the initialized runtime module, in fp32."""
        built = self.resolved.build(self.context.replace(shared={}), **how)
        if not isinstance(built, nn.Module):
            raise ContractError(f"build returned a {type(built).__name__}, not a torch.nn.Module")
        return _with_runs(self.started(built))

    def started(self, built: nn.Module) -> nn.Module:
        """Initialize a module that was built outside of a model."""
        scheme = cast("InitializerSpec", self.other("initializer", "normal"))
        initialize(nn.ModuleDict({"component": built}), scheme, self.context, seed=0)
        return built

    def forward(self, ids_BT: Tensor) -> Forward:
        return Forward(ids_BT)

    # -- tokenizers and data -------------------------------------------------------------------------------------

    @cached_property
    def _fitted(self) -> Tokenizer | TokenizerError:
        try:
            return cast("TokenizerSpec", self.spec).fit(iter(CORPUS))
        except TokenizerError as error:
            return error

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, fitted on a small corpus; the check is skipped if that fails (`fits` reports why)."""
        if isinstance(self._fitted, TokenizerError):
            skip(f"it could not be fitted: {self._fitted.message}")
        return self._fitted

    @cached_property
    def _directory(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="gptkit-check-")

    @cached_property
    def base(self) -> Path:
        """A directory with a small corpus in its directory `data`: a text file, a Markdown file and JSON lines."""
        directory = Path(self._directory.name)
        write_corpus(directory / "data")
        return directory


def _with_runs(module: M) -> M:
    """Replace the other runs that parts of a module use by a tiny model of their vocabulary."""
    for run in other_runs(module):
        layout = {"d_model": 16, "n_layers": 1, "context_length": run.context_length, "attention": {"n_heads": 2}}
        run.adopt(GPT({**layout, "position": "rotary"}, run.vocab_size, seed=0))
    return module


def token_ids(rows: int, length: int, seed: int = 0) -> Tensor:
    """Return random token ids, (rows, length)."""
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def _hooks(position: Any) -> frozenset[str]:
    return frozenset(position.uses) - {"embed"}


def stirred_matrices(module: Any) -> Any:
    """Change the weights of matrices randomly; vectors, such as the weights of norms, keep their initial values."""
    vectors = {name: parameter.detach().clone() for name, parameter in module.named_parameters() if parameter.dim() < 2}
    stirred(module)
    for name, vector in vectors.items():
        module.get_parameter(name).data.copy_(vector)
    return module


@torch.no_grad()
def stirred(module: Any, seed: int = 7) -> Any:
    """Change every weight randomly, so that weights of one and biases of zero do not hide errors."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter.dtype) * 0.2)
    return module


@torch.no_grad()
def randomized(module: Any, seed: int) -> Any:
    """Replace every parameter by large random values, including norms and biases."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        spread = 1.0 if parameter.dim() < 2 else 2 / parameter.shape[-1] ** 0.5
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return module


def _short(value: Any) -> str:
    text = value.name if isinstance(value, Component) else str(value)
    return text if len(text) <= 24 else f"{text[:23]}…"
