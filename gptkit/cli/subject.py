"""Subject of `show`, `check` and `diff`: the spec of a file or run, and the size of its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gptkit.core.errors import GptkitError, SpecError
from gptkit.runs.opening import Opened, open_spec
from gptkit.runs.spec import ExperimentSpec

if TYPE_CHECKING:
    from gptkit.model.gpt import GPT
    from gptkit.model.plan import Plan
    from gptkit.runs.directory import RunDirectory

__all__ = ["Subject", "open_subject"]


@dataclass(frozen=True)
class Subject:
    """A resolved spec and its source.

    Attributes:
        label: the file or directory, as given by the user.
        spec: the spec.
        base: the directory that its relative paths are resolved against.
        run: the run directory, or None for a spec file.
    """

    label: str
    spec: ExperimentSpec
    base: Path
    run: RunDirectory | None = None

    def vocab_size(self, *, fit: bool) -> int | None:
        """Return the number of token ids; None if it depends on a corpus that is not read or unavailable.

        Args:
            fit: read the corpus if the tokenizer's size depends on it.
        """
        if self.spec.model.vocab_size is not None:
            return self.spec.model.vocab_size
        if self.run is not None and self.run.tokenizer.is_dir():
            from gptkit.runs.tokenizers import load_tokenizer

            return load_tokenizer(self.spec, self.run).vocab_size
        expected = self.spec.tokenizer.expected_vocab_size
        if expected is not None or not fit:
            return expected
        from gptkit.runs.corpus import fit_tokenizer

        try:
            return fit_tokenizer(Opened(self.spec, self.base)).vocab_size
        except GptkitError:
            return None

    def model(self, vocab_size: int) -> GPT:
        """Build the model on the meta device, which allocates no memory."""
        from gptkit.runs.build import shell

        return shell(self.spec, vocab_size)

    def plan(self, vocab_size: int, model: GPT | None = None) -> Plan:
        """Return the model's sizes, those of training for one micro-batch; `model` is the result of `model()`, if built."""
        from gptkit.runs.build import countable
        from gptkit.runs.sizes import training_plan

        with countable(self.spec, vocab_size):
            return training_plan(self.spec, vocab_size, model)


def open_subject(target: str, overrides: Sequence[str] = ()) -> Subject:
    """Open a spec file, a preset, or the spec of a run directory.

    Raises:
        SpecError: the spec is invalid.
        RequirementError: a run requires a plugin that is missing or broken.
        GptkitError: the file or run was not found.
    """
    if Path(target).is_dir():
        from gptkit.runs.directory import RunDirectory

        directory = RunDirectory(target)
        directory.require_run()
        try:
            opened = open_spec(directory.spec, overrides)
        except SpecError:
            # If a plugin is missing, the message about what to install replaces the one about an unknown component.
            directory.require_components()
            raise
        base = Path(directory.read_provenance().get("base", "."))
        return Subject(target, opened.spec, base, directory)
    path = Path(target)
    if not path.suffix and path.parent != Path() and not path.exists():
        from gptkit.runs.directory import suggestion

        raise GptkitError(
            f"{target}: run or spec file not found{suggestion(path)}",
            hint="Pass a run directory, a spec file, or the name of a preset (gptkit new --list).",
        )
    opened = open_spec(target, overrides)
    return Subject(target, opened.spec, opened.base)
