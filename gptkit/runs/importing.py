"""Import of an external model as a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from gptkit.core.atomic import write_bytes
from gptkit.core.errors import ExternalModelError, SpecError, TokenizerError
from gptkit.core.registry import Registry
from gptkit.files import validate_data
from gptkit.interop.conversion import Move, check_tensors, family_of, pair, read_model
from gptkit.interop.sampling import sampler_of
from gptkit.interop.selection import detect_format
from gptkit.interop.tensor_files import counted, write_tensors
from gptkit.kinds.format import ExternalTokenizer, Progress, TensorEntry, Tensors
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.model.gpt import GPT
from gptkit.runs.directory import RunDirectory
from gptkit.runs.opening import Opened
from gptkit.runs.resizing import extended, grow, require_rows
from gptkit.runs.run import Run, load
from gptkit.runs.saving import write_run
from gptkit.runs.spec import ExperimentSpec
from gptkit.text.hub_files import TOKENIZER_FILE

__all__ = ["convert_model", "import_model"]

_log = logging.getLogger("gptkit")


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
    """Import an external model as a run, tensor by tensor, in the memory that the largest tensor takes.

    Args:
        path: the model's file or directory, in any format that is installed.
        directory: the run directory.
        format: the name of the format; detected by default.
        tokenizer: another tokenizer, as a spec file would have it, or the path of a tokenizer.json or its directory.
        name: the experiment's name; that of the path by default.
        resize: add a row to the embedding, and to the head, for each token id that has none: the mean of the others.
        overwrite: replace the run in the directory, when the new one is complete.
        progress: receives the number of bytes written and of all.
        registry: where formats, families and components are looked up; by default what is installed.

    Returns:
        The run directory.

    Raises:
        ExternalModelError: a key or tensor is not understood, missing or damaged.
        CheckpointError: the directory holds a run already or other files, or another process writes into it.
    """
    source, run = Path(path), RunDirectory(directory)
    chosen = detect_format(source, format, registry)
    external = chosen.read(source, registry)
    family, config = family_of(external, registry)
    model = read_model(family, config, external.config_location, registry)
    stored = external.tokenizer() if tokenizer is None else ExternalTokenizer(_as_mapping(tokenizer))
    # A tokenizer without files of its own is read from the run's copy.
    own = {"path": str(run.tokenizer.resolve())} if stored.files else {}
    generation = dict(external.generation())
    title = name or _stem(source) or "imported"
    spec = _experiment(model, title, {**stored.spec, **own}, sampler_of(generation), registry)
    try:
        shell = GPT(spec.model, device="meta")
    except (RuntimeError, OverflowError) as error:
        raise ExternalModelError(f"{external.config_location} describes a model that cannot be built: {error}") from None
    moves, tensors = pair(family, shell), external.tensors()
    where = check_tensors(family, shell, moves, tensors.entries, external.location)
    words = _fit(spec, stored, external.location)
    shapes: Mapping[str, tuple[int, ...]] = {}
    if not resize:
        require_rows(external.location, words.vocab_size, shell.vocab_size)
    elif words.vocab_size > shell.vocab_size:
        grown, shapes = extended(spec.model, words.vocab_size)
        spec = spec.model_copy(update={"model": grown})

    imported: dict[str, Any] = {"family": family.component_name(), "format": chosen.component_name(), "from": source.name}
    if generation:
        imported["generation"] = generation
    if tokenizer is None and external.token_settings():
        imported["token_settings"] = dict(external.token_settings())

    def write(file: Path) -> None:
        _convert(file, moves, tensors, where, shapes, progress)

    opened = Opened(spec, Path.cwd())
    return write_run(run, opened, words, write, overwrite=overwrite, registry=registry, imported=imported)


def _experiment(
    model: Any, name: str, tokenizer: Any, sampler: list[dict[str, Any]] | None, registry: Registry | None
) -> ExperimentSpec:
    data = {"name": name[:200], "tokenizer": tokenizer, "model": model.model_dump(mode="json")}
    if sampler is not None:
        try:
            return validate_data({**data, "sampler": sampler}, ExperimentSpec, registry)
        except SpecError as error:
            if not all(problem.path[:1] == ("sampler",) for problem in error.problems):
                raise
            _log.warning("the model's defaults of generation are not usable, and the default sampler is kept: %s", error)
    return validate_data(data, ExperimentSpec, registry)


def _stem(source: Path) -> str:
    return source.stem if source.is_file() else source.resolve().name


def _as_mapping(tokenizer: str | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(tokenizer, str):
        return tokenizer
    path = Path(tokenizer)
    folder = path.parent if path.name == TOKENIZER_FILE else path
    if (folder / TOKENIZER_FILE).is_file():
        return {"name": "hugging-face", "path": str(folder.resolve())}
    return {"name": tokenizer}


def _fit(spec: ExperimentSpec, stored: ExternalTokenizer, location: str) -> Tokenizer:
    """Return the tokenizer, whose files are written to a temporary directory where the format stores them otherwise."""
    if not stored.files:
        return spec.tokenizer.fit(iter(()))
    with TemporaryDirectory() as temporary:
        for name, data in stored.files.items():
            write_bytes(Path(temporary) / name, data)
        try:
            return spec.tokenizer.model_copy(update={"path": temporary}).fit(iter(()))
        except TokenizerError as error:
            # The temporary path means nothing to the user.
            what = error.message.partition(temporary)[2].partition(": ")[2] or error.message
            raise ExternalModelError(f"{location}: its tokenizer {what}", hint=error.hint) from None


def _convert(
    file: Path,
    moves: list[Move],
    stored: Tensors,
    where: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    progress: Progress | None,
) -> None:
    """Write the native tensors, in `shapes` where those are not the external model's."""

    def names(move: Move) -> list[str]:
        return [where[name] for name in move.external]

    dtypes = {move.native: _common([stored.entries[name].dtype for name in names(move)]) for move in moves}
    # Tensors of wider elements first, so that each is aligned to its elements' size.
    ordered = sorted(moves, key=lambda move: -dtypes[move.native].itemsize)
    entries = {
        move.native: TensorEntry(shapes.get(move.native, tuple(move.like.shape)), dtypes[move.native]) for move in ordered
    }
    report = counted(sum(entry.bytes for entry in entries.values()), progress)

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for move in ordered:
            dtype = dtypes[move.native]
            joined = move.join([stored.get(name).to(dtype) for name in names(move)])
            yield move.native, grow(joined, entries[move.native].shape)

    write_tensors(file, entries, tensors(), {"aliases": "{}"}, report)


def _common(dtypes: list[torch.dtype]) -> torch.dtype:
    widest = dtypes[0]
    for dtype in dtypes[1:]:
        widest = torch.promote_types(widest, dtype)
    return widest
