"""Kind `engine`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gptkit.core.component import Component

if TYPE_CHECKING:
    from gptkit.engines.engine import Engine
    from gptkit.kinds.format import NativeModel
    from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["EngineContext", "EngineSpec"]


@dataclass(frozen=True)
class EngineContext:
    """Context that an engine receives when it is built.

    Attributes:
        directory: the run directory, for engines that export the run to a format of their own.
        tokenizer: the tokenizer of the run.
        load_model: function that loads and returns the model (`gptkit.inference.protocol.LanguageModel`). An engine that
            does not compute with it does not call it, so its weights are not loaded.
        max_batch: maximum number of requests that run at the same time.
        native_model: function that returns the run's weights and other data, for engines that export them.
    """

    directory: Path
    tokenizer: Tokenizer
    load_model: Callable[[], Any]
    max_batch: int = 8
    native_model: Callable[[], NativeModel] = field(kw_only=True)


class EngineSpec(Component):
    """Engine: the program that computes the next tokens of a run's model, for many requests at once.

    The server (`gptkit serve`) drives an engine, and requests come and go while others run; `gptkit generate` and `gptkit
    chat` use it for their texts. An engine that decodes with a drafter of gptkit (`--speculate`), or compiles
    (`--compile`), has a field `drafter` or `compile`; other engines refuse these options.

    Declared capabilities:
        applies_precision: it computes with the loaded model, so a precision (`--precision`) takes effect.
        traces: it records what each sampler left (`Request.trace`, `--trace`).
    """

    kind: ClassVar[str] = "engine"
    commands: ClassVar[tuple[str, ...]] = ("gptkit generate RUN --engine {name}", "gptkit serve RUN --engine {name}")
    runtime: ClassVar[str] = "gptkit.engines.engine:Engine"
    applies_precision: ClassVar[bool] = False
    traces: ClassVar[bool] = False

    @abstractmethod
    def build(self, context: EngineContext) -> Engine:
        """Return the engine, ready to receive requests.

        Raises:
            GptkitError: it cannot compute the model of this run; the message says which part, and the hint the remedy.
        """
