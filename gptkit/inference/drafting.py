"""Drafters as generation uses them: built for each text, and checked.

Shapes: B batch (1), T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gptkit.core.errors import GptkitError, StateError
from gptkit.core.spec import Spec
from gptkit.files import validate_data
from gptkit.inference.compiled.decoding import decoding_model
from gptkit.inference.modes import evaluating
from gptkit.inference.predicting import CachedText, PredictionReader
from gptkit.inference.prompts import shared_length
from gptkit.inference.protocol import LanguageModel, VerifiableCache
from gptkit.kinds.drafter import Drafter, DrafterContext, DrafterSpec, TextReader
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.model.gpt import GPT

__all__ = ["CheckedDrafter", "DrafterLike", "Drafting", "ModelReader", "drafter_spec"]

DrafterLike = DrafterSpec | str | Mapping[str, Any]
"""A spec, a name such as ``"ngram"``, or fields such as ``{"name": "ngram", "k": 6}``."""


class _Field(Spec):
    drafter: DrafterSpec


def drafter_spec(drafter: DrafterLike) -> DrafterSpec:
    """Return the validated drafter.

    Raises:
        SpecError: the name is unknown, or a field is invalid.
    """
    return drafter if isinstance(drafter, DrafterSpec) else validate_data({"drafter": drafter}, _Field).drafter


class Drafting:
    """Factory of the drafters of the texts that one model generates.

    Args:
        spec: the drafter.
        model: the model that verifies the proposals.
        tokenizer: its tokenizer.
        compile: let draft runs decode with compiled steps, as the model does.

    Raises:
        GptkitError: the model's cache cannot return to fewer tokens, or the drafter cannot be built.

    Attributes:
        needs_hidden: whether the cache must keep the vectors that the head receives, ``new_cache(…, keep_hidden=True)``.
    """

    def __init__(self, spec: DrafterSpec, model: LanguageModel, tokenizer: Tokenizer, *, compile: bool = False) -> None:
        self._spec = spec
        self._tokenizer = tokenizer
        self._vocab_size = min(model.vocab_size, tokenizer.vocab_size)
        self._models: dict[str, LanguageModel] = {}
        self._model = model
        self._compile = compile
        _require_truncation(model)
        self.needs_hidden = bool(self.start().readers)

    def start(self) -> CheckedDrafter:
        """Return the drafter of a new text."""
        readers: list[PredictionReader] = []

        def open_predictions() -> PredictionReader:
            readers.append(_open_predictions(self._spec.name, self._model, self._vocab_size))
            return readers[-1]

        context = DrafterContext(self._vocab_size, self._tokenizer, self._open_run, open_predictions)
        return CheckedDrafter(self._spec.name, self._spec.build(context), self._vocab_size, readers)

    def _open_run(self, directory: str) -> TextReader:
        if directory not in self._models:
            self._models[directory] = _load_model(directory, self._tokenizer)
        return ModelReader(decoding_model(self._models[directory], compile=self._compile), self._vocab_size)


class CheckedDrafter:
    """A drafter whose proposals are checked, so that an error of a plugin is reported with its name.

    Args:
        name: its name.
        drafter: the drafter.
        vocab_size: V.
        readers: the readers of the model's prediction modules that it uses.
    """

    def __init__(self, name: str, drafter: Drafter, vocab_size: int, readers: Sequence[PredictionReader] = ()) -> None:
        self._name = name
        self._drafter = drafter
        self._vocab_size = vocab_size
        self.readers = readers

    def propose(self, history: Sequence[int], limit: int, cached: CachedText | None = None) -> list[int]:
        """Return at most `limit` valid token ids.

        Args:
            history: the text.
            limit: maximum number of tokens.
            cached: the part of the text in the model's cache, if the drafter has readers of prediction modules.

        Raises:
            GptkitError: the drafter raised an exception, or its proposal is invalid.
        """
        try:
            if cached is not None:
                for reader in self.readers:
                    reader.begin(history, cached)
            proposal = [token.__index__() for token in self._drafter.propose(history, limit)]
        except GptkitError:
            raise
        except Exception as error:
            raise self._error(f"raised {type(error).__name__}: {error}") from error
        if len(proposal) > limit:
            raise self._error(f"proposed {len(proposal)} tokens, at most {limit} were requested")
        outside = next((token for token in proposal if not 0 <= token < self._vocab_size), None)
        if outside is not None:
            raise self._error(f"proposed token {outside}, but the vocabulary has {self._vocab_size} tokens")
        return proposal

    def verified(self, n_proposed: int, n_accepted: int) -> None:
        """Report the result of a verification to the drafter."""
        try:
            self._drafter.verified(n_proposed, n_accepted)
        except GptkitError:
            raise
        except Exception as error:
            raise self._error(f"raised {type(error).__name__}: {error}") from error

    def _error(self, what: str) -> GptkitError:
        return GptkitError(
            f"drafter {self._name!r} {what}",
            hint="Report this to its author, or generate without it (no --speculate, drafter=None).",
        )


class ModelReader:
    """Logits of one text that grows and is cut, with a key/value cache: a `TextReader`.

    A text longer than the model's context is read without its beginning; the first visible token changes once per half
    context.

    Args:
        model: the model.
        vocab_size: V, at most the model's.
    """

    def __init__(self, model: LanguageModel, vocab_size: int) -> None:
        self._model = model
        self._vocab_size = vocab_size
        self._cache: VerifiableCache | None = None
        self._cached: list[int] = []
        self._marked = 0

    def __call__(self, text: Sequence[int]) -> Tensor:
        visible = list(text[_first_visible(len(text), self._model.context_length) :])
        with torch.inference_mode(), evaluating(self._model):
            cache, n_kept = self._cache_for(visible)
            ids_BT = torch.tensor([visible[n_kept:]], device=self._model.device)
            logits_B1V: Tensor = self._model(ids_BT, cache=cache, last_only=True).logits
        self._cache, self._cached = cache, visible
        return logits_B1V[0, -1, : self._vocab_size].float()

    def mark(self) -> None:
        if self._cache is not None:
            self._cache.mark()
            self._marked = self._cache.length

    def _cache_for(self, visible: list[int]) -> tuple[VerifiableCache, int]:
        """Return a cache that holds the first tokens of the text, and their number; the last token is never held."""
        cache, self._cache = self._cache, None  # an interrupted forward pass leaves a cache that cannot be used
        if cache is not None and cache.capacity >= len(visible):
            n_shared = shared_length(self._cached, visible[:-1])
            for length in (n_shared, self._marked):
                if 0 < length <= n_shared and cache.can_truncate(length):
                    cache.truncate(length)
                    return cache, length
        self._marked = 0
        # Twice what is needed, so that a growing text is read again only a few times.
        return self._model.new_cache(1, capacity=min(self._model.context_length, 2 * len(visible))), 0


def _first_visible(n_tokens: int, limit: int) -> int:
    half = max(1, limit // 2)
    return max(0, -(-(n_tokens - limit) // half) * half)


def _load_model(directory: str, tokenizer: Tokenizer) -> LanguageModel:
    import gptkit  # the public entry point: runs are above this package

    run = gptkit.load(directory)
    if not run.tokenizer.agrees_with(tokenizer):
        raise GptkitError(
            f"the tokenizer of the draft run {directory} differs from that of the model, so its tokens cannot be proposed",
            hint="Train or import a draft run with the tokenizer of the model.",
        )
    return run.model


def _open_predictions(drafter: str, model: LanguageModel, vocab_size: int) -> PredictionReader:
    predictions = model.head.predictions if isinstance(model, GPT) else None
    if predictions is None:
        raise GptkitError(
            f"drafter {drafter!r} requires a model whose head has prediction modules, and the model's head has none",
            hint="Train the model with the head 'multi-token', or choose another drafter, such as 'ngram'.",
        )
    return PredictionReader(predictions, model, vocab_size)


def _require_truncation(model: LanguageModel) -> None:
    """Process three tokens, and check that the last two can be discarded."""
    hint = "Generate without a drafter (no --speculate, drafter=None)."
    if model.context_length < 3:
        raise GptkitError("the model's context is too short for speculative decoding", hint=hint)
    with torch.inference_mode(), evaluating(model):
        cache = model.new_cache(1, capacity=3)
        missing = [name for name in ("mark", "can_truncate", "truncate", "steady") if not hasattr(cache, name)]
        if missing:
            raise GptkitError(f"speculative decoding requires a cache with the method {missing[0]!r}", hint=hint)
        model(torch.tensor([[0]], device=model.device), cache=cache)
        cache.mark()
        model(torch.tensor([[0, 0]], device=model.device), cache=cache)
        try:
            cache.truncate(1)
        except StateError as error:
            raise GptkitError(f"speculative decoding cannot undo rejected tokens: {error.message}", hint=hint) from None
