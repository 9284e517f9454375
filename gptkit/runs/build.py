"""Construction of models from specs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from gptkit.core.errors import Problem, SpecError
from gptkit.core.memory import explain_exhaustion
from gptkit.core.registry import Registry
from gptkit.model.gpt import GPT
from gptkit.model.plan import human_count, refuse_unless_fits
from gptkit.model.tree import count
from gptkit.nn.freezing import freeze
from gptkit.runs.corpus import fit_tokenizer
from gptkit.runs.opening import SpecLike, open_spec
from gptkit.runs.spec import ExperimentSpec
from gptkit.training.seeds import derive

__all__ = ["build", "countable", "new_model", "shell"]


def build(
    spec: SpecLike,
    overrides: Sequence[str] = (),
    *,
    device: str = "cpu",
    registry: Registry | None = None,
    **changes: Any,
) -> GPT:
    """Build the untrained model of a spec.

    ::

        model = gptkit.build("tiny.yaml", model={"n_layers": 2})

    Args:
        spec: a spec file, the name of a shipped spec, plain data, or an `ExperimentSpec`.
        overrides: ``"model.position=alibi"`` and the like, as on the command line.
        device: the device of the weights; ``"meta"`` for a model without memory.
        registry: where components are looked up; by default what is installed.
        changes: parts of the spec to change, with Python values; ``**{"model.d_model": 64}`` for nested ones.

    Raises:
        SpecError: the spec is invalid.
        TokenizerError, DataError: the vocabulary size depends on the corpus, which is unavailable.
    """
    opened = open_spec(spec, overrides, changes, registry=registry)
    known = opened.spec.model.vocab_size or opened.spec.tokenizer.expected_vocab_size
    vocab_size = fit_tokenizer(opened).vocab_size if known is None else known
    return new_model(opened.spec, vocab_size, device=device)


def new_model(
    spec: ExperimentSpec,
    vocab_size: int,
    *,
    fill: bool = True,
    device: str = "cpu",
    to_train: bool = False,
    shards: int = 1,
) -> GPT:
    """Build the model of a spec, initialized with the seed of the training spec.

    Args:
        spec: the spec.
        vocab_size: the vocabulary size of the tokenizer.
        fill: whether to initialize the weights; unnecessary before loading.
        device: the device of the weights.
        to_train: whether gradients and the optimizer's state must fit in memory too.
        shards: number of processes that hold equal parts of the weights.

    Raises:
        CapacityError: the model does not fit in memory.
        SpecError: the tokenizer has more ids than the model.
    """
    room = spec.model.vocab_size
    if room is not None and vocab_size > room:
        message = f"the tokenizer has {vocab_size} ids, but the model has {room}; remove vocab_size, or raise it"
        raise SpecError([Problem(("model", "vocab_size"), message)])
    if fill:
        planned = shell(spec, vocab_size)
        parameters = count(planned)
        # In fp32: weights, and for training also gradients and the two moments of optimizers such as AdamW.
        freeze(planned, spec.training.freeze)
        trained = count(planned, trained=True) if to_train else 0
        needed = (parameters * 4 + trained * 12) // shards
        purpose = "training a model of" if to_train else "a model of"
        refuse_unless_fits(needed, f"{purpose} {human_count(parameters)} parameters", "cpu" if device == "meta" else device)
    start = derive(spec.training.seed, "weights") if fill else None
    return GPT(spec.model, vocab_size, seed=start, device=device)


def shell(spec: ExperimentSpec, vocab_size: int) -> GPT:
    """Return the model of a spec on the meta device.

    Raises:
        CapacityError: its sizes exceed what PyTorch can count.
    """
    with countable(spec, vocab_size):
        return GPT(spec.model, vocab_size, device="meta")


def countable(spec: ExperimentSpec, vocab_size: int) -> AbstractContextManager[None]:
    """Return a context that raises a `CapacityError` if the model's sizes exceed what PyTorch can count."""
    what = f"a model of width {spec.model.d_model:,} with {spec.model.n_layers:,} layers and {vocab_size:,} token ids"
    return explain_exhaustion(what, "Lower model.d_model, model.n_layers, model.context_length or the vocabulary.")
