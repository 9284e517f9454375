"""`ExperimentSpec`: the content of a spec file, a complete experiment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from gptkit.core import resolution
from gptkit.core.component import Component, component
from gptkit.core.errors import Problem
from gptkit.core.spec import Spec, validation_error
from gptkit.core.suggestions import did_you_mean
from gptkit.core.walk import components
from gptkit.kinds.data import DataSpec
from gptkit.kinds.decoding import DecodingSpec
from gptkit.kinds.linear import LinearSpec
from gptkit.kinds.sampler import SamplerSpec
from gptkit.kinds.tokenizer import TokenizerSpec
from gptkit.model.spec import ModelSpec
from gptkit.training.config import TrainingSpec
from gptkit.training.resume import CHANGEABLE, Fixed

if TYPE_CHECKING:
    from gptkit.diagrams.outline import Counts, Outline

__all__ = ["ExperimentSpec", "spec_outline"]


class ExperimentSpec(Spec):
    """Experiment: tokenizer, model, sampler, data and training. Only `model` is required."""

    gptkit: Annotated[Literal[1], CHANGEABLE] = Field(1, description="The version of this format.")
    name: Annotated[str, CHANGEABLE] = Field(
        "gpt", min_length=1, max_length=200, description="Name of the experiment, for titles and lists."
    )
    requires: Annotated[tuple[str, ...], CHANGEABLE] = Field(
        (),
        description="Required distributions in the syntax of pip, such as `gptkit-mla>=1.2`; checked first.",
    )
    tokenizer: Annotated[TokenizerSpec, Fixed("the weights belong to its token ids")] = component(
        "bpe", description="The tokenizer."
    )
    model: Annotated[ModelSpec, Fixed("the weights belong to it")] = Field(
        description="The model; with training.init_from (train --init) its differences from that of the weights."
    )
    sampler: Annotated[tuple[SamplerSpec, ...], CHANGEABLE] = Field(
        default=({"name": "temperature", "value": 0.8}, {"name": "top-k", "k": 40}),
        validate_default=True,
        description="Samplers of the next token, applied in this order; empty to sample from the model's distribution.",
    )
    decoding: Annotated[DecodingSpec, CHANGEABLE] = component(
        "sample", description="How continuations are searched for in the distribution that the samplers leave."
    )
    data: Annotated[DataSpec, Fixed("the order of the data depends on it")] = component("builtin", description="The corpus.")
    # As data, so that its components are resolved with the registry of the others.
    training: TrainingSpec = component({}, description="Training, and its records.")

    @model_validator(mode="after")
    def _check(self) -> ExperimentSpec:
        problems = list(self._problems())
        if problems:
            raise validation_error(problems, self)
        return self

    def _problems(self) -> Iterator[Problem]:
        expected, room = self.tokenizer.expected_vocab_size, self.model.vocab_size
        if expected is not None and room is not None and expected > room:
            yield Problem(
                ("model", "vocab_size"),
                f"tokenizer {self.tokenizer.name!r} has {expected} ids, but the model has {room}; "
                f"set vocab_size to {expected} or more, or remove it",
            )
        parts: list[tuple[tuple[str | int, ...], Component]] = [
            (("tokenizer",), self.tokenizer),
            *((("sampler", index), link) for index, link in enumerate(self.sampler)),
            (("decoding",), self.decoding),
            (("data",), self.data),
        ]
        window, context_length = self.training.window, self.model.context_length
        if window is not None and window > context_length:
            yield Problem(
                ("training", "window"),
                f"a data window of {window:,} tokens exceeds the model's context_length of {context_length:,}; "
                f"set it to at most {context_length}, or remove it",
            )
        for index, stage in enumerate(self.training.stages):
            if stage.window is not None and stage.window > self.window:
                yield Problem(
                    ("training", "stages", index, "window"),
                    f"{stage.window:,} tokens exceed a data window of {self.window:,}; set it to at most {self.window}",
                )
        yield from self._mixture_problems()
        yield from self._name_problems()
        for place, part in parts:
            for problem in resolution.problems(part, None):
                yield problem.below(*place)

    def _mixture_problems(self) -> Iterator[Problem]:
        """Yield problems of the stages' mixtures, which name the sources of the data."""
        names = [name for name, _ in self.data.parts()]
        for index, stage in enumerate(self.training.stages):
            if stage.mixture is not None and not names:
                message = f"data {self.data.name!r} has no sources; use data: mixture, or remove it"
                yield Problem(("training", "stages", index, "mixture"), message)
                continue
            for name in stage.mixture or ():
                if name not in names:
                    message = f"the data has no such source; {did_you_mean(name, names, 'sources')}"
                    yield Problem(("training", "stages", index, "mixture", name), message)

    def _name_problems(self) -> Iterator[Problem]:
        """Yield problems that depend on the names of the model's parameters and projections."""
        linears = [(path, part) for path, part in components(self.model, ("model",)) if isinstance(part, LinearSpec)]
        adapted = [(path, part) for path, part in linears if part.merged() != part]
        groups = self.training.optimizer.groups
        losses = [stage.losses for stage in self.training.stages]
        if not (self.training.freeze or adapted or groups or any(losses)):
            return
        # The names are those of the built model; they do not depend on the size of the vocabulary.
        from gptkit.core.memory import explain_exhaustion
        from gptkit.model.gpt import GPT
        from gptkit.nn.freezing import freeze_problems, frozen_names, projection_names
        from gptkit.nn.loss_weights import loss_weight_problems
        from gptkit.nn.parameters import group_problems

        with explain_exhaustion("the model", "Lower model.d_model, model.n_layers or model.context_length."):
            model = GPT(self.model, self.model.vocab_size or self.tokenizer.expected_vocab_size or 1, device="meta")
        names = [name for name, _ in model.named_parameters()]
        for index, message in freeze_problems(names, self.training.freeze or ()):
            yield Problem(("training", "freeze") if index is None else ("training", "freeze", index), message)
        for index, name, message in loss_weight_problems(model, losses):
            yield Problem(("training", "stages", index, "losses", name), message)
        frozen = frozen_names(model, self.training.freeze)
        for place, message in group_problems(names, [name for name in names if name not in frozen], groups):
            yield Problem(("training", "optimizer", "groups", *place), message)
        seen: list[Component] = []
        for path, part in adapted:
            # Layers repeat the model's own part, which counts only where no layers are given.
            if part not in seen and (path[1] == "layers" or self.model.layers is None):
                seen.append(part)
                own = ("model", "linear") if part == self.model.linear else path
                for problem in part.name_problems(*projection_names(model)):
                    yield problem.below(*own)

    def _repr_html_(self) -> str:
        """The architecture and the spec in a notebook."""
        from gptkit.diagrams.notebook import notebook

        return notebook(spec_outline(self), repr(self))

    @property
    def window(self) -> int:
        """Number of tokens of a data window, in training and validation."""
        return self.training.window or self.model.context_length

    def components(self) -> Iterator[Component]:
        """Yield every component in use, including nested ones."""
        yield from self.model.components()
        for name in ("tokenizer", "sampler", "decoding", "data", "training"):
            for _, used in components(getattr(self, name)):
                yield used

    def plain(self) -> dict[str, Any]:
        """Return the spec as plain data, including all defaults; it loads back equal."""
        return self.model_dump(mode="json")

    @property
    def sha256(self) -> str:
        """Hash of the spec; equal specs have equal hashes, independent of their source form."""
        return hashlib.sha256(json.dumps(self.plain(), sort_keys=True).encode()).hexdigest()


def spec_outline(spec: ExperimentSpec, vocab_size: int | None = None, counts: Counts | None = None) -> Outline:
    """Return the content of the diagram of a spec.

    Args:
        spec: the spec.
        vocab_size: the number of token ids of its tokenizer, if it is known.
        counts: the numbers of parameters of its model; none are shown without them.
    """
    from gptkit.diagrams.outline import outline

    return outline(
        spec.model, name=spec.name, tokenizer=spec.tokenizer, sampler=spec.sampler, vocab_size=vocab_size, counts=counts
    )
