"""What a generation gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Finish", "Generated", "Timings"]

Finish = Literal["length", "stop", "end", "interrupted"]
"""Why a text ended: its length was reached, a stop string or stop token came, the model ended it, or Ctrl-C was pressed."""


@dataclass(frozen=True)
class Timings:
    """How long a batch took. Callbacks are not counted.

    Attributes:
        prompt_tokens: tokens of all prompts that the model read.
        prefill_seconds: from the start until the first token of each text was known.
        decoded_tokens: tokens of all texts, without the first of each.
        decode_seconds: the time for those.
    """

    prompt_tokens: int
    prefill_seconds: float
    decoded_tokens: int
    decode_seconds: float

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens read a second; 0 where nothing was read."""
        return self.prompt_tokens / self.prefill_seconds if self.prefill_seconds else 0.0

    @property
    def decode_rate(self) -> float:
        """Tokens written a second, all texts of the batch together; 0 where none was."""
        return self.decoded_tokens / self.decode_seconds if self.decode_seconds else 0.0


@dataclass(frozen=True)
class Generated:
    """One text that was written.

    Attributes:
        prompt_ids: the tokens it continues.
        ids: the tokens written, without the one that ended the text; with those that a stop string came in.
        text: what was written after the prompt, without the stop string.
        finish: why it ended.
        seed: the seed of the batch, chosen by chance where none was given: with it the text can be written again.
        log_probabilities: for each of `ids` its log-probability under the model itself, before the samplers; None
            where they were not asked for.
        timings: of the whole batch.
    """

    prompt_ids: list[int] = field(repr=False)
    ids: list[int] = field(repr=False)
    text: str
    finish: Finish
    seed: int
    log_probabilities: list[float] | None = field(repr=False)
    timings: Timings = field(repr=False)
