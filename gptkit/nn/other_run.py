"""Another run that a component of a model uses in training, such as a teacher.

Shapes: B batch, T tokens, C tokens of a chunk, E model width, V vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gptkit.core.errors import GptkitError
from gptkit.kinds.context import BuildContext
from gptkit.nn.forward import Forward
from gptkit.nn.head import Head

if TYPE_CHECKING:
    from gptkit.core.registry import Registry
    from gptkit.kinds.tokenizer import Tokenizer
    from gptkit.model.gpt import GPT

__all__ = ["OtherRun", "Outputs", "other_runs"]


class OtherRun:
    """The frozen model of a trained run, loaded on first use.

    It is not a module, so that its parameters are not those of the component that uses it: they are neither trained nor
    saved. Copies of the component share it.

    Args:
        path: the run directory.
        role: what the run is for the component, for messages: ``"the teacher of the distillation"``.
        context: the build context of the component.
    """

    def __init__(self, path: Path, role: str, context: BuildContext) -> None:
        self.path = path
        self.role = role
        self.vocab_size = context.vocab_size
        self.context_length = context.context_length
        self._registry: Registry | None = context.registry
        self._model: GPT | None = None
        self._tokenizer: Tokenizer | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> OtherRun:
        return self

    @property
    def model(self) -> GPT:
        """The model, frozen and in evaluation mode.

        Raises:
            GptkitError: the run cannot be loaded, has another vocabulary size, or has a shorter context.
        """
        if self._model is None:
            self._load()
        assert self._model is not None
        return self._model

    def check(self, tokenizer: Tokenizer) -> None:
        """Load the run, and check that every token id has the same text in it as in a tokenizer.

        Raises:
            GptkitError: the run cannot be loaded, or the tokenizers differ.
        """
        _ = self.model
        other = self._tokenizer
        if other is not None and not other.agrees_with(tokenizer):
            raise GptkitError(
                f"{self.role}, {self.path}, has another tokenizer than this model, so its token ids do not match",
                hint="Copy the section tokenizer from its spec.yaml (a trained tokenizer requires the same corpus, too), or "
                "choose another run.",
            )

    @torch.no_grad()
    def outputs(self, forward: Forward) -> Outputs:
        """Return the run's outputs for the tokens of a forward pass, with the same documents, padding and prefix."""
        model = self.model
        if model.device != forward.device:
            model.to(forward.device)
        x_BTE, context = model.hidden(
            forward.ids_BT,
            left_padding_B=forward.left_padding_B,
            documents_BT=forward.documents_BT,
            prefix_B=forward.prefix_B,
        )
        return Outputs(model.head, x_BTE, context)

    def release(self) -> None:
        """Forget the model; the next use loads it again."""
        self._model = self._tokenizer = None

    def _load(self) -> None:
        import gptkit  # the public entry point: runs are above this package

        try:
            run = gptkit.load(self.path, device="cpu", registry=self._registry)
        except GptkitError as error:
            raise GptkitError(
                f"{self.role} cannot be loaded: {error.message}",
                hint="Give the directory of a trained run (an external model is imported first)."
                + (f" {error.hint}" if error.hint else ""),
            ) from error
        self.adopt(run.model)
        self._tokenizer = run.tokenizer

    def adopt(self, model: GPT) -> None:
        """Use a model in place of the run's (tests do so), and freeze it.

        Raises:
            GptkitError: it has another vocabulary size, or a shorter context.
        """
        if model.vocab_size != self.vocab_size:
            raise GptkitError(
                f"{self.role}, {self.path}, has {model.vocab_size:,} token ids, but this model has {self.vocab_size:,}",
                hint="Choose a run with the same tokenizer, and the same model.vocab_size.",
            )
        if model.context_length < self.context_length:
            raise GptkitError(
                f"{self.role}, {self.path}, has a context length of {model.context_length:,}, "
                f"but this model has one of {self.context_length:,}",
                hint=f"Set model.context_length to at most {model.context_length}, or choose another run.",
            )
        self._model = model.requires_grad_(False).eval()


class Outputs:
    """Hidden vectors of a model for a batch, from which its logits are computed chunk by chunk.

    Args:
        head: the model's head.
        x_BTE: the vectors that it receives.
        context: the context to call it with.
    """

    def __init__(self, head: Head, x_BTE: Tensor, context: Forward) -> None:
        self.head = head
        self._x_BTE = x_BTE
        self._context = context

    def logits(self, begin: int, end: int) -> Tensor:
        """Return the logits (B, C, V) of the tokens `begin` to `end`."""
        logits_BCV: Tensor = self.head(self._x_BTE[:, begin:end], self._context.span(begin, end))
        return logits_BCV


def other_runs(module: nn.Module) -> list[OtherRun]:
    """Return the runs that the parts of a module use, as attributes."""
    return [value for part in module.modules() for value in vars(part).values() if isinstance(value, OtherRun)]
