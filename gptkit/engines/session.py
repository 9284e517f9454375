"""Generation in turns with an engine, as `gptkit.inference.session` does without one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from gptkit.engines.engine import Engine
from gptkit.engines.generation import EngineGeneration
from gptkit.inference.generation import TextStream
from gptkit.inference.request import Overflow, Request
from gptkit.inference.samplers import SamplerLike, sampler_chain

__all__ = ["EngineSession", "EngineTurn"]


class EngineSession:
    """Session of prompts that an engine continues in turn.

    Whether the tokens that a prompt shares with previous texts are processed again depends on the engine.

    Args:
        engine: the engine.

    Attributes:
        limit: maximum number of tokens of a text, including its prompt.
        n_read: number of tokens of all prompts and texts so far.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn: EngineTurn | None = None
        self._n_before = 0
        self.limit = engine.context_length

    def stream(
        self,
        prompt_ids: Sequence[int],
        *,
        sampler: SamplerLike = (),
        max_new_tokens: int = 200,
        stop: Sequence[str] = (),
        stop_ids: Collection[int] = (),
        seed: int = 0,
        turn: int = 0,
        overflow: Overflow = "slide",
    ) -> EngineTurn:
        """Continue a prompt, and yield the text piece by piece; ends the previous turn.

        Args:
            prompt_ids, sampler, max_new_tokens, stop, stop_ids, seed, turn, overflow: as for `Session.stream`.

        Raises:
            GptkitError: the engine cannot compute the request.
        """
        if self._turn is not None:
            self._turn.close()
            self._n_before, self._turn = self.n_read, None
        request = Request(
            list(prompt_ids),
            sampler=sampler_chain(sampler),
            max_new_tokens=max_new_tokens,
            stop=tuple(stop),
            stop_ids=frozenset(stop_ids),
            seed=seed,
            stream=turn,
            overflow=overflow,
        )
        self._turn = EngineTurn(EngineGeneration(self._engine, [request]))
        return self._turn

    @property
    def n_cached(self) -> int:
        """Number of tokens of the latest text: how much of the context (`limit`) is used."""
        return 0 if self._turn is None else min(self.limit, self._turn.n_tokens)

    @property
    def n_read(self) -> int:
        return self._n_before + (0 if self._turn is None else self._turn.n_tokens)


class EngineTurn(Iterator[str]):
    """Iterator over the pieces of one continuation.

    Ctrl-C while the engine computes ends the iteration, with `finish` "interrupted".

    Args:
        generation: the generation of one request.
    """

    def __init__(self, generation: EngineGeneration) -> None:
        self._generation = generation
        self._stream = TextStream(generation)
        (self._state,) = generation.states

    def __next__(self) -> str:
        return next(self._stream)

    def close(self) -> None:
        """End the text."""
        self._stream.close()

    @property
    def text(self) -> str:
        """The text so far."""
        return self._state.text.text

    @property
    def ids(self) -> list[int]:
        """The generated token ids."""
        return self._state.history[len(self._state.request.prompt_ids) :]

    @property
    def n_tokens(self) -> int:
        """Number of tokens of the prompt and the text."""
        return len(self._state.history)

    @property
    def finish(self) -> str | None:
        """Finish reason, as in `Generated.finish`; None until the text has ended."""
        return self._state.finish

    @property
    def prefill_seconds(self) -> float:
        """Time until the first token."""
        return self._generation.timings.prefill_seconds

    @property
    def decode_seconds(self) -> float:
        """Time to generate the others."""
        return self._generation.timings.decode_seconds

    @property
    def n_drafted(self) -> int:
        """Number of tokens that the engine's drafter proposed."""
        return self._generation.timings.drafted_tokens

    @property
    def n_accepted(self) -> int:
        """Number of these that became a part of the text."""
        return self._generation.timings.accepted_tokens
