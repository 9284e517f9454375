"""The requests of a call that generates texts."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence

from gptkit.inference.prompts import as_ids
from gptkit.inference.request import Overflow, Request
from gptkit.inference.samplers import SamplerLike, sampler_chain
from gptkit.inference.trace import CANDIDATES
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["new_requests"]


def new_requests(
    tokenizer: Tokenizer,
    vocab_size: int,
    prompts: str | Sequence[str | Sequence[int]],
    *,
    sampler: SamplerLike = (),
    max_new_tokens: int = 200,
    stop: str | Sequence[str] = (),
    stop_ids: Collection[int] | None = None,
    seed: int | None = None,
    overflow: Overflow = "slide",
    log_probabilities: bool = False,
    top_log_probabilities: int = 0,
    trace: bool | int = False,
) -> list[Request]:
    """Return one request per prompt; all have the same seed, and the prompt's index as random stream.

    Args:
        tokenizer: the tokenizer.
        vocab_size: number of the model's token ids.
        prompts, sampler, max_new_tokens, stop, stop_ids, seed, overflow, log_probabilities, top_log_probabilities, trace: as
            for `gptkit.generate`.

    Raises:
        GptkitError: a prompt or an option is invalid.
    """
    seed = secrets.randbits(32) if seed is None else seed
    ends = ((tokenizer.end_id,) if tokenizer.end_id is not None else ()) if stop_ids is None else stop_ids
    return [
        Request(
            prompt,
            sampler=sampler_chain(sampler),
            max_new_tokens=max_new_tokens,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            stop_ids=frozenset(ends),
            seed=seed,
            stream=index,
            overflow=overflow,
            log_probabilities=top_log_probabilities if log_probabilities or top_log_probabilities else None,
            trace=CANDIDATES if trace is True else int(trace),
        )
        for index, prompt in enumerate(as_ids(prompts, tokenizer, vocab_size))
    ]
