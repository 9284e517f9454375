"""Import of an external model as a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptkit.core.commands import command
from gptkit.core.errors import ExternalModelError
from gptkit.core.paths import real
from gptkit.core.registry import Registry
from gptkit.interop.tensor_files import counted, write_tensors
from gptkit.kinds.format import Progress, TensorEntry
from gptkit.model.spec import ModelSpec
from gptkit.runs.directory import RunDirectory
from gptkit.runs.external import NativeTensors, read_external
from gptkit.runs.opening import Opened
from gptkit.runs.resizing import extended, grow, require_rows
from gptkit.runs.run import Run, load
from gptkit.runs.saving import write_run
from gptkit.text.hub_files import TOKENIZER_FILE

__all__ = ["convert_model", "fine_tuning", "import_model"]


def import_model(path: str | Path, directory: str | Path, **options: Any) -> Run:
    """Import an external model as a run and load it.

    ::

        run = gptkit.import_model("SmolLM2-135M", "runs/smollm2")

    Args:
        path, directory, options: as for `convert_model`.

    Raises:
        ExternalModelError: the model cannot be imported; names the key or tensor.
    """
    return load(convert_model(path, directory, **options), registry=options.get("registry"))


def convert_model(
    path: str | Path,
    directory: str | Path,
    *,
    format: str | None = None,
    tokenizer: str | Mapping[str, Any] | None = None,
    name: str | None = None,
    resize: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> Path:
    """Import an external model as a run, tensor by tensor, with the memory of the largest tensor.

    Args:
        path: the model's file or directory, in any installed format.
        directory: the run directory.
        format: the name of the format; detected by default.
        tokenizer: replacement of the tokenizer, as in a spec file, or the path of a tokenizer.json or its directory.
        name: the experiment's name; that of the path by default.
        resize: add a row to the embedding, and to the head, for each token id without one: the mean of the others.
        overwrite: replace the run in the directory when the new one is complete.
        progress: receives the number of bytes written and the total.
        registry: where formats, families and components are looked up; by default what is installed.

    Returns:
        The run directory.

    Raises:
        ExternalModelError: a key or tensor is unknown, missing or damaged.
        CheckpointError: the directory holds a run already or other files, or another process writes into it.
    """
    source, run = Path(path), RunDirectory(directory)
    if format is None and RunDirectory(source).holds_run:
        raise ExternalModelError(
            f"{source} is a run already", hint=f"Use it as it is: {command('gptkit generate', source)}."
        )
    external = read_external(
        source,
        format=format,
        tokenizer=None if tokenizer is None else _as_mapping(tokenizer),
        # A tokenizer that is not stored in files is read from the run's copy.
        tokenizer_path=real(run.tokenizer),
        name=name,
        training=fine_tuning,
        registry=registry,
    )
    spec, tensors, words = external.spec, external.tensors(), external.tokenizer()
    shapes: Mapping[str, tuple[int, ...]] = {}
    if not resize:
        require_rows(external.model.location, words.vocab_size, external.shell.vocab_size)
    elif words.vocab_size > external.shell.vocab_size:
        grown, shapes = extended(spec.model, words.vocab_size)
        spec = spec.model_copy(update={"model": grown})

    def write(file: Path) -> None:
        _convert(file, tensors, shapes, progress)

    opened = Opened(spec, Path.cwd())
    return write_run(run, opened, words, write, overwrite=overwrite, registry=registry, imported=external.notes())


def fine_tuning(model: ModelSpec) -> dict[str, Any]:
    """Return the section `training` of an imported model's spec, with values for fine-tuning.

    The defaults are for training from scratch: they would take hours, and destroy the pretrained weights.
    """
    return {
        "steps": 60,
        "batch_size": 8,
        "grad_accumulation": 4,
        "window": min(model.context_length, 256),
        "optimizer": {"name": "adamw", "learning_rate": 5e-5, "weight_decay": 0.01},
        "schedule": {"name": "cosine", "warmup_steps": 10},
        "evaluate_every": 30,
        "evaluate_batches": 8,
        "sample_every": None,
        "checkpoint_every": None,
    }


def _as_mapping(tokenizer: str | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(tokenizer, str):
        return tokenizer
    path = Path(tokenizer)
    directory = path.parent if path.name == TOKENIZER_FILE else path
    if (directory / TOKENIZER_FILE).is_file():
        return {"name": "hugging-face", "path": str(real(directory))}
    return {"name": tokenizer}


def _convert(file: Path, tensors: NativeTensors, shapes: Mapping[str, tuple[int, ...]], progress: Progress | None) -> None:
    """Write the native tensors, with the shapes in `shapes` if these differ from the external model's."""
    # Tensors of wider elements first, so that each is aligned to its elements' size.
    ordered = sorted(tensors.entries.items(), key=lambda item: -item[1].dtype.itemsize)
    entries = {name: TensorEntry(shapes.get(name, entry.shape), entry.dtype) for name, entry in ordered}
    report = counted(sum(entry.bytes for entry in entries.values()), progress)
    grown = ((name, grow(tensors.get(name), entry.shape)) for name, entry in entries.items())
    write_tensors(file, entries, grown, {"aliases": "{}"}, report)
