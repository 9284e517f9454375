"""Creation of runs from existing weights: those of a model in memory, or of an import."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gptkit.checkpoint.safetensors import save_tensors, weights
from gptkit.checkpoint.store import CheckpointStore
from gptkit.core.atomic import atomic_directory
from gptkit.core.errors import GptkitError
from gptkit.core.paths import real
from gptkit.core.registry import Registry
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.model.gpt import GPT
from gptkit.runs.build import new_model
from gptkit.runs.directory import RunDirectory
from gptkit.runs.moved import base_notes
from gptkit.runs.opening import Opened, SpecLike, open_spec
from gptkit.runs.placing import Placement
from gptkit.runs.spec import ExperimentSpec

__all__ = ["require_allowed", "save_opened", "save_run", "write_run"]

_LISTED = 3


def save_run(
    path: str | Path,
    model: GPT,
    tokenizer: Tokenizer,
    spec: SpecLike | None = None,
    *,
    overwrite: bool = False,
    registry: Registry | None = None,
) -> Path:
    """Write a model and its tokenizer as a run, which can be loaded, evaluated, exported and trained further.

    ::

        gptkit.save_run("runs/merged", model, tokenizer)

    The run has one checkpoint, of step 0, with the weights in their dtype, and without an optimizer's state.

    Args:
        path: the run directory.
        model: the model.
        tokenizer: its tokenizer.
        spec: the experiment, in any form that `gptkit.build` accepts; its model must have the model's tensors. Plain data
            without `model` is completed by the model's spec. By default, the specs of the model and of the tokenizer.
        overwrite: replace the run in the directory when the new one is complete. Only files that gptkit wrote are replaced.
        registry: where components are looked up; by default what is installed.

    Returns:
        The run directory.

    Raises:
        GptkitError: the model has no weights, or others than the spec, or the tokenizer does not define its spec.
        SpecError: the spec is invalid, or the tokenizer has more ids than the model.
        CheckpointError: the directory holds a run already or other files, or another process writes into it.
    """
    if spec is None:
        own = tokenizer.to_spec(real(RunDirectory(path).tokenizer))
        if own is None:
            raise GptkitError(
                f"a {type(tokenizer).__name__} does not define its spec", hint="Pass it: spec={'tokenizer': {'name': …}}."
            )
        spec = {"name": real(Path(path)).name[:200] or "saved", "tokenizer": own}
    if isinstance(spec, Mapping) and "model" not in spec:
        spec = {**spec, "model": _model_data(model, tokenizer)}
    opened = open_spec(spec, registry=registry)
    return save_opened(path, model, tokenizer, opened, overwrite=overwrite, registry=registry)


def save_opened(
    path: str | Path,
    model: GPT,
    tokenizer: Tokenizer,
    opened: Opened,
    *,
    overwrite: bool = False,
    registry: Registry | None = None,
    **notes: Any,
) -> Path:
    """Write a run as `save_run` does, from a spec that is already validated; `notes` are added to the provenance."""
    if model.precision is not None:
        raise GptkitError(
            f"the model is in precision {model.precision.name!r}, from which its weights cannot be restored",
            hint="Load the run without a precision; gptkit quantize RUN -o RUN2 writes one in a precision.",
        )
    tensors = weights(model)
    empty = [name for name, tensor in tensors.items() if tensor.is_meta]
    if empty:
        raise GptkitError(f"the model has no weights: {empty[0]} is on the meta device", hint="Load or initialize it first.")
    _require_described(tensors, opened.spec, tokenizer)

    def write(file: Path) -> None:
        save_tensors(tensors, file, {"format": "pt"})

    run = RunDirectory(path)
    return write_run(run, opened, tokenizer, write, overwrite=overwrite, registry=registry, **notes)


def write_run(
    run: RunDirectory,
    opened: Opened,
    tokenizer: Tokenizer,
    write_weights: Callable[[Path], None],
    *,
    overwrite: bool,
    registry: Registry | None,
    state: Mapping[str, Any] | None = None,
    **notes: Any,
) -> Path:
    """Write a run, which replaces the one in the directory when it is complete.

    Args:
        run: the run directory.
        opened: the spec, and the base directory of its relative paths.
        tokenizer: the tokenizer.
        write_weights: function that writes the weights to a path.
        overwrite: replace the run in the directory.
        registry: the registry with the provenance of components.
        state: additional entries of the checkpoint's state.json.
        notes: additional entries of the provenance.

    Returns:
        The run directory.

    Raises:
        CheckpointError: the directory holds a run already or other files, or another process writes into it.
    """
    run.recover()
    require_allowed(run, overwrite)
    with run.lock():
        placement = Placement(run)
        placement.recover()
        require_allowed(run, overwrite)
        try:
            new = RunDirectory(placement.begin())
            with atomic_directory(new.tokenizer) as directory:
                tokenizer.save(directory)
            CheckpointStore(new.checkpoints).adopt(write_weights, state)
            new.write_spec(opened.spec)
            written = [path.relative_to(new.path).as_posix() for path in sorted(new.path.rglob("*")) if path.is_file()]
            written = ["provenance.json", *(name for name in written if not name.startswith("checkpoints/"))]
            new.write_provenance(opened.spec, registry, **notes, **base_notes(opened.base, run.path), files=written)
            placement.place(written)
            placement.commit()
        except BaseException:
            placement.recover()
            raise
    return run.path


def require_allowed(run: RunDirectory, overwrite: bool) -> None:
    """Raise a `CheckpointError` if a run may not be written to the directory: it has other files, or a run that is kept."""
    run.require_no_file()
    if not (overwrite and run.holds_run):
        run.require_free()


def _model_data(model: GPT, tokenizer: Tokenizer) -> dict[str, Any]:
    data = model.spec.model_dump(mode="json")
    if model.vocab_size != tokenizer.vocab_size:
        data["vocab_size"] = model.vocab_size
    return data


def _require_described(tensors: Mapping[str, Any], spec: ExperimentSpec, tokenizer: Tokenizer) -> None:
    """Raise unless the tensors match those of the spec's model: tied ones once, and with equal shapes."""
    built = new_model(spec, tokenizer.vocab_size, fill=False, device="meta")
    expected = {name: tuple(tensor.shape) for name, tensor in weights(built).items()}
    present = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    problems = [
        *(f"{name} is missing" for name in expected if name not in present),
        *(f"{name} is not in the spec" for name in present if name not in expected),
        *(
            f"{name} is {shape}, in the spec {expected[name]}"
            for name, shape in present.items()
            if expected.get(name, shape) != shape
        ),
    ]
    if problems:
        more = f" and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise GptkitError(
            f"the model's tensors do not match the spec: {'; '.join(problems[:_LISTED])}{more}",
            hint="Merge adapters into the weights and tie the tensors that the spec ties, or pass this model's spec.",
        )
