"""Conversations with a model."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from gptkit.core.errors import GptkitError
from gptkit.engines.engine import Engine
from gptkit.engines.session import EngineSession, EngineTurn
from gptkit.inference.drafting import DrafterLike
from gptkit.inference.request import Overflow
from gptkit.inference.samplers import SamplerLike, sampler_chain
from gptkit.inference.session import Session, Turn
from gptkit.kinds.sampler import SamplerSpec
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.model.gpt import GPT
from gptkit.runs.prompts import prompt_ids, stop_ids
from gptkit.text.chat import chat_ids

__all__ = ["Conversation"]

_LEAST_ROOM = 4
"""At least this fraction of the context, 1 / n, is reserved for the reply."""


class Conversation:
    """A conversation with a model.

    ::

        talk = run.conversation(system="Be brief.")
        print(talk.say("What is the capital of France?"))
        print(talk.say("And of Italy?"))

    Messages are formatted by the tokenizer's chat template. Without one, the model continues plain text with one message per
    line.

    Args:
        model, tokenizer: the model and the tokenizer of the run.
        system: the system message, or the beginning of a plain text.
        ends: additional token ids that end a reply.
        sampler, max_new_tokens, stop, seed, compile: as for `gptkit.generate`, for every turn.
        overflow: behavior when the conversation fills the context: the oldest messages are discarded ("slide"), or the
            turn is refused ("stop"). A reply that reaches the context length slides or stops as in `gptkit.generate`.
        drafter: drafter of speculative decoding, as for `gptkit.generate`; replies stay the same.
        engine: engine that generates the replies; by default the model does, and keeps its key/value cache between turns.

    Raises:
        GptkitError: an engine is given with `drafter` or `compile`.

    Attributes:
        messages: the conversation without the system message: mappings with `role` and `content`.
        system: the system message; may be assigned.
        n_discarded: number of messages at the beginning that no longer fit the context.
    """

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        *,
        system: str | None = None,
        ends: Sequence[int] = (),
        sampler: SamplerLike = (),
        max_new_tokens: int = 200,
        stop: Sequence[str] = (),
        seed: int | None = None,
        overflow: Overflow = "slide",
        drafter: DrafterLike | None = None,
        compile: bool = False,
        engine: Engine | None = None,
    ) -> None:
        if engine is not None and (drafter is not None or compile):
            hint = "Build the engine with them: NativeSpec(drafter=…, compile=True)."
            raise GptkitError("drafter and compile are fields of the engine that was given", hint=hint)
        self._session: Session | EngineSession = (
            Session(model, tokenizer, drafter, compile=compile) if engine is None else EngineSession(engine)
        )
        self._tokenizer = tokenizer
        self._options: dict[str, Any] = {
            "sampler": sampler_chain(sampler),
            "max_new_tokens": max_new_tokens,
            "stop": tuple(stop),
        }
        self._options |= {"overflow": overflow, "stop_ids": stop_ids(tokenizer, ends)}
        self.seed = secrets.randbits(32) if seed is None else seed
        self.system = system
        self.messages: list[dict[str, str]] = []
        self.n_discarded = 0
        self._turns = 0

    @property
    def is_chat(self) -> bool:
        """Whether messages are formatted by a chat template."""
        return self._tokenizer.chat_template is not None

    @property
    def sampler(self) -> tuple[SamplerSpec, ...]:
        """The chain of samplers; may be assigned, for the next reply."""
        chain: tuple[SamplerSpec, ...] = self._options["sampler"]
        return chain

    @sampler.setter
    def sampler(self, sampler: SamplerLike) -> None:
        self._options["sampler"] = sampler_chain(sampler)

    @property
    def max_new_tokens(self) -> int:
        """Maximum number of tokens of a reply; may be assigned."""
        return int(self._options["max_new_tokens"])

    @max_new_tokens.setter
    def max_new_tokens(self, number: int) -> None:
        self._options["max_new_tokens"] = number

    @property
    def n_context(self) -> int:
        """Number of tokens of the context that the last turn used; `context_length` is the number that fit."""
        return self._session.n_cached

    @property
    def context_length(self) -> int:
        """Number of tokens that fit the context."""
        return self._session.limit

    @property
    def n_read(self) -> int:
        """Number of tokens that the model has processed."""
        return self._session.n_read

    def check(self) -> None:
        """Check that the conversation can be rendered: the template may reject a system message, or require Jinja.

        Raises:
            TokenizerError: the template rejects it.
        """
        self._ids([{"role": "user", "content": "?"}])

    def reset(self) -> None:
        """Discard all messages but the system message."""
        self.messages.clear()
        self.n_discarded = 0

    def undo(self) -> str | None:
        """Remove the last message of the user and its reply; return the message, or None without one."""
        if not self.messages:
            return None
        users = [index for index, message in enumerate(self.messages) if message["role"] == "user"]
        text = self.messages[users[-1]]["content"]
        del self.messages[users[-1] :]
        self.n_discarded = min(self.n_discarded, len(self.messages))
        return text

    def regenerate(self) -> Reply:
        """Replace the last reply: yield another one in pieces, from another random stream.

        Raises:
            GptkitError: the conversation has no reply yet.
        """
        text = self.undo()
        if text is None:
            raise GptkitError("the conversation has no reply yet", hint="Write a message first.")
        return self.stream(text)

    def say(self, text: str) -> str:
        """Return the reply to a message. Ctrl-C ends the reply early."""
        return "".join(self.stream(text))

    def stream(self, text: str) -> Reply:
        """Yield the reply to a message in pieces.

        Raises:
            GptkitError: the message does not fit the context, with overflow "stop"; the conversation is unchanged then.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        discarded = self.n_discarded
        ids = self._ids(messages[discarded:])
        limit, slides = self._session.limit, self._options["overflow"] == "slide"
        room = min(self._options["max_new_tokens"], limit // _LEAST_ROOM)
        while slides and self.is_chat and len(ids) > limit - room and len(messages) - discarded > 1:
            # Discard a user's message with its reply, so that roles still alternate.
            discarded = min(discarded + 2, len(messages) - 1)
            ids = self._ids(messages[discarded:])
        turn = self._session.stream(ids, seed=self.seed, turn=self._turns, **self._options)
        self._turns += 1
        self.messages, self.n_discarded = messages, discarded
        reply = {"role": "assistant", "content": ""}
        messages.append(reply)
        return Reply(turn, reply, max(0, len(ids) - limit))

    def _ids(self, messages: Sequence[dict[str, str]]) -> list[int]:
        if self.is_chat:
            system = [] if self.system is None else [{"role": "system", "content": self.system}]
            return chat_ids(self._tokenizer, [*system, *messages])
        parts = [] if self.system is None else [self.system]
        for message in messages:
            if message["role"] == "user":
                parts.append(message["content"])
            elif parts:
                parts[-1] += message["content"]
        return prompt_ids(self._tokenizer, "\n".join(parts))


class Reply(Iterator[str]):
    """Iterator over the pieces of a reply; the conversation holds the text generated so far.

    Attributes:
        n_unread: number of tokens at the beginning of the text that do not fit the context.
    """

    def __init__(self, turn: Turn | EngineTurn, message: dict[str, str], n_unread: int) -> None:
        self._turn, self._message = turn, message
        self.n_unread = n_unread

    def __next__(self) -> str:
        try:
            return next(self._turn)
        finally:
            self._message["content"] = self._turn.text

    def close(self) -> None:
        """End the reply."""
        self._turn.close()
        self._message["content"] = self._turn.text

    @property
    def finish(self) -> str | None:
        """Finish reason, as in `Generated.finish`; None until the reply has ended."""
        return self._turn.finish

    @property
    def n_tokens(self) -> int:
        """Number of generated tokens."""
        return len(self._turn.ids)

    @property
    def n_drafted(self) -> int:
        """Number of tokens that the drafter proposed and the model verified."""
        return self._turn.n_drafted

    @property
    def n_accepted(self) -> int:
        """Number of these that became a part of the reply."""
        return self._turn.n_accepted

    @property
    def decode_rate(self) -> float:
        """Tokens per second after the first; 0 for fewer than two tokens."""
        seconds = self._turn.decode_seconds
        return max(0, self.n_tokens - 1) / seconds if seconds else 0.0

    @property
    def prefill_seconds(self) -> float:
        """Time until the first token."""
        return self._turn.prefill_seconds
