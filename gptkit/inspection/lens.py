"""Logit lens: what each layer's residual stream would predict, and the surprise of the text.

Shapes: L layers, T tokens, E model width, V vocabulary, K candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.inference.modes import evaluating
from gptkit.model.gpt import GPT
from gptkit.nn.forward import Forward

__all__ = ["LogitLens", "Prediction", "logit_lens"]

_LOGITS_AT_ONCE = 1 << 24
"""Number of logits that are held at once for one layer, unless the head needs all tokens of the text."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Prediction:
    """The most likely next tokens, at one position.

    Attributes:
        ids: token ids, the most likely first.
        probabilities: their probabilities.
        divergence: Kullback-Leibler divergence of this distribution from the model's, in bits: 0 at the last layer.
    """

    ids: tuple[int, ...]
    probabilities: tuple[float, ...]
    divergence: float


@dataclass(frozen=True)
class LogitLens:
    """Predictions of the next token from the residual stream at every depth.

    Depth 0 is the embedding, depth n the output of block n - 1. Every depth passes through the model's final norm and head,
    as the last one does in the model, so the last depth is the model's own prediction.

    Paper: https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens

    Attributes:
        ids: (L + 1, T, K) the most likely tokens.
        probabilities: (L + 1, T, K) their probabilities.
        divergence: (L + 1, T) KL(model ‖ depth) in bits.
        next_probability: (L + 1, T - 1) probability of the token that follows in the text.
        entropy: (T,) entropy of the model's prediction in bits.
        rank: (T - 1,) number of tokens that the model holds more likely than the one that follows.
        bits: (T - 1,) surprise: -log2 of the model's probability of the token that follows.
    """

    ids: Tensor = field(repr=False)
    probabilities: Tensor = field(repr=False)
    divergence: Tensor = field(repr=False)
    next_probability: Tensor = field(repr=False)
    entropy: Tensor = field(repr=False)
    rank: Tensor = field(repr=False)
    bits: Tensor = field(repr=False)

    @property
    def n_depths(self) -> int:
        """Number of depths: the number of layers, and one for the embedding."""
        return self.ids.shape[0]

    def at(self, depth: int, position: int) -> Prediction:
        """Return the prediction of one depth for the token after `position`; negative numbers count from the last."""
        return Prediction(
            tuple(self.ids[depth, position].tolist()),
            tuple(self.probabilities[depth, position].tolist()),
            float(self.divergence[depth, position]),
        )

    def __repr__(self) -> str:
        return f"<LogitLens of {self.ids.shape[1]} tokens at {self.n_depths} depths: lens.at(depth, position)>"


@torch.inference_mode()
def logit_lens(
    model: GPT, ids: Sequence[int], *, top: int = 5, vocab_size: int | None = None, progress: Progress | None = None
) -> LogitLens:
    """Compute the logit lens of a text.

    Args:
        model: the model.
        ids: the tokens of the text, at least one.
        top: K, the number of tokens kept of each prediction.
        vocab_size: number of token ids that can be predicted (the tokenizer's); the model's by default.
        progress: called with the number of finished predictions and their total.

    Raises:
        StateError: the text is longer than the context.
    """
    n_vocabulary = min(model.vocab_size, vocab_size or model.vocab_size)
    ids_1T = torch.tensor([list(ids)], device=model.device)
    n_tokens = len(ids)
    with evaluating(model):
        stream, context = residual_stream(model, ids_1T)
        size = n_tokens if model.head.mixes_tokens else max(1, _LOGITS_AT_ONCE // n_vocabulary)
        parts = []
        for begin in range(0, n_tokens, size):
            end = min(n_tokens, begin + size)
            part = context if size >= n_tokens else context.span(begin, end)
            # (end - begin) targets; after the last token there is none.
            targets_T = ids_1T[0, begin + 1 : end + 1]
            parts.append(_part(model, [x_1TE[:, begin:end] for x_1TE in stream], part, targets_T, top, n_vocabulary))
            if progress is not None:
                progress(end, n_tokens)
    return LogitLens(**{name: torch.cat([part[name] for part in parts], dim) for name, dim in _FIELDS.items()})


_FIELDS = {"ids": 1, "probabilities": 1, "divergence": 1, "next_probability": 1, "entropy": 0, "rank": 0, "bits": 0}
"""The tensors of a `LogitLens`, with the dimension of tokens."""


def residual_stream(model: GPT, ids_1T: Tensor) -> tuple[list[Tensor], Forward]:
    """Return the input of the first block and the output of every block, (1, T, E), and the context for the head."""
    stream: list[Tensor] = []
    running = 0

    def before(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        nonlocal running
        if not running and not stream:
            stream.append(arguments[0])
        running += 1

    def after(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        nonlocal running
        running -= 1
        # A block that another one holds too is a part of the outer one's depth.
        if not running:
            stream.append(output)

    with ExitStack() as hooks:
        for block in dict.fromkeys(model.blocks):
            hooks.callback(block.register_forward_pre_hook(before).remove)
            hooks.callback(block.register_forward_hook(after).remove)
        _, context = model.hidden(ids_1T)
    return stream, context


def logits_of(model: GPT, x_1TE: Tensor, context: Forward) -> Tensor:
    """Return the logits (1, T, V) of vectors of the residual stream, through the final norm and the head."""
    fork = context.fork(x_1TE)  # what a head publishes for one depth does not reach the next
    fork.weights = None
    logits_1TV: Tensor = model.head(model.final_norm(x_1TE), fork)
    return logits_1TV


def _part(
    model: GPT, stream: Sequence[Tensor], context: Forward, targets_T: Tensor, top: int, n_vocabulary: int
) -> dict[str, Tensor]:
    """Return the fields of a `LogitLens` for some of its tokens."""

    def log_p_TV(x_1TE: Tensor) -> Tensor:
        return logits_of(model, x_1TE, context)[0, :, :n_vocabulary].float().log_softmax(dim=-1)

    n_next = len(targets_T)
    final_TV = log_p_TV(stream[-1])
    final_p_TV = final_TV.exp()
    next_T1 = targets_T[:, None]
    next_log_p_T1 = final_TV[:n_next].gather(-1, next_T1)
    best, divergences, next_p = [], [], []
    for current_TV in _depths(stream, log_p_TV, final_TV):
        best.append(current_TV.topk(min(top, n_vocabulary), dim=-1))
        # Where the model excludes a token, 0 · log 0 counts as 0.
        terms_TV = torch.where(final_p_TV > 0, final_p_TV * (final_TV - current_TV), 0.0)
        divergences.append(terms_TV.sum(dim=-1).clamp(min=0) / math.log(2))
        next_p.append(current_TV[:n_next].gather(-1, next_T1)[:, 0].exp())
    terms_TV = torch.where(final_p_TV > 0, final_p_TV * final_TV, 0.0)
    return {
        "ids": torch.stack([each.indices for each in best]).cpu(),
        "probabilities": torch.stack([each.values.exp() for each in best]).cpu(),
        "divergence": torch.stack(divergences).cpu(),
        "next_probability": torch.stack(next_p).cpu(),
        "entropy": (-terms_TV.sum(dim=-1) / math.log(2)).clamp(min=0).cpu(),
        "rank": (final_TV[:n_next] > next_log_p_T1).sum(dim=-1).cpu(),
        "bits": (-next_log_p_T1[:, 0] / math.log(2)).clamp(min=0).cpu(),
    }


def _depths(stream: Sequence[Tensor], log_p_TV: Callable[[Tensor], Tensor], final_TV: Tensor) -> Iterator[Tensor]:
    """Yield the log-probabilities at each depth, one at a time."""
    for x_1TE in stream[:-1]:
        yield log_p_TV(x_1TE)
    yield final_TV
