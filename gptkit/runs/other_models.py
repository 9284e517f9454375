"""Models of the runs that a training uses, such as a teacher, on the meta device."""

from __future__ import annotations

from gptkit.core.errors import GptkitError
from gptkit.model.gpt import GPT
from gptkit.nn.other_run import other_runs
from gptkit.runs.directory import RunDirectory
from gptkit.runs.opening import open_spec

__all__ = ["other_models"]


def other_models(model: GPT) -> list[GPT]:
    """Return the models of the runs that the parts of a model use in training; they hold no memory.

    Raises:
        GptkitError: a run is not there, or its spec is invalid.
    """
    models: dict[str, GPT] = {}
    for other in other_runs(model):
        directory = RunDirectory(other.path)
        try:
            directory.require_run()
            spec = open_spec(directory.spec).spec
        except GptkitError as error:
            raise GptkitError(
                f"the size of {other.role} is unknown: {error.message}",
                hint="Plan where the run is, or set its path.",
            ) from error
        models[str(other.path.resolve())] = GPT(spec.model, other.vocab_size, device="meta").eval()
    return list(models.values())
