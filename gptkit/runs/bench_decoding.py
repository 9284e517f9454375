"""Speed of decoding a spec's untrained model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from gptkit.core.errors import GptkitError, TokenizerError
from gptkit.inference import generate
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.model.gpt import GPT
from gptkit.runs.bench_timeline import ComponentTime, Timeline, component_times, timed_decoding
from gptkit.runs.spec import ExperimentSpec

__all__ = ["DecodingSpeed", "decoding_speed"]


@dataclass(frozen=True)
class DecodingSpeed:
    """Speed of decoding one text.

    Attributes:
        prompt_tokens: number of tokens of the prompt.
        tokens: number of generated tokens.
        first_token_seconds: time to the first token.
        tokens_per_second: speed of the tokens after the first.
        components: the time of decoding by component, the prompt included; `seconds` are those of all tokens.
    """

    prompt_tokens: int
    tokens: int
    first_token_seconds: float
    tokens_per_second: float
    components: list[ComponentTime]


class _Numbered(Tokenizer):
    """Tokenizer of a given size without a text: every id is a space."""

    def __init__(self, size: int) -> None:
        self._size = size

    @property
    def vocab_size(self) -> int:
        return self._size

    @property
    def special_tokens(self) -> Mapping[str, int]:
        return {}

    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
        return [0] * len(text)

    def token_bytes(self, token: int) -> bytes:
        if not 0 <= token < self._size:
            raise TokenizerError(f"token id {token} is outside the vocabulary of {self._size}")
        return b" "

    def save(self, directory: Path) -> None:
        raise TokenizerError("the tokenizer of a measurement cannot be saved", hint="Save that of the run.")


def decoding_speed(model: GPT, spec: ExperimentSpec, n_tokens: int) -> DecodingSpeed:
    """Measure how fast one text is continued with the spec's samplers, in the dtype of the weights.

    The prompt has half as many tokens as fit beside the new ones.

    Args:
        model: the model; it is in evaluation mode afterwards.
        spec: the spec.
        n_tokens: number of tokens to generate.

    Raises:
        GptkitError: the tokens do not fit into the context.
    """
    if not 2 <= n_tokens < model.context_length:
        raise GptkitError(
            f"{n_tokens} tokens to generate, but the model's context has {model.context_length}",
            hint=f"Pass --generate a number from 2 to {model.context_length - 1}.",
        )
    model.eval()
    n_prompt = max(1, (model.context_length - n_tokens) // 2)
    generator = torch.Generator().manual_seed(spec.training.seed % 2**63)
    ids = torch.randint(model.vocab_size, (n_prompt,), generator=generator).tolist()
    tokenizer = _Numbered(model.vocab_size)

    def run(n: int) -> tuple[float, float]:
        (result,) = generate(
            model, tokenizer, [ids], sampler=spec.sampler, max_new_tokens=n, stop_ids=(), seed=spec.training.seed % 2**32
        )
        assert result.timings is not None
        return result.timings.prefill_seconds, result.timings.decode_rate

    run(2)
    first, rate = run(n_tokens)
    timeline = Timeline(model.device)
    with timed_decoding(model, timeline, "sampling"):
        run(n_tokens)
        timeline.mark("decoding", "sampling")
    whole = first + (n_tokens - 1) / rate
    return DecodingSpeed(n_prompt, n_tokens, first, rate, component_times(timeline.seconds(), whole))
