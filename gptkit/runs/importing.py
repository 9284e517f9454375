"""A model of another library becomes a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from gptkit.checkpoint.store import CheckpointStore
from gptkit.core.atomic import atomic_directory
from gptkit.core.errors import ExternalModelError, TokenizerError
from gptkit.core.registry import Registry
from gptkit.files import validate_data
from gptkit.interop.conversion import Move, check_tensors, find_family, pair, read_model
from gptkit.interop.formats.gguf.model import GgufModel
from gptkit.interop.tensor_files import Entry, TensorFiles, read_json, write_tensors
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.model.gpt import GPT
from gptkit.runs.folder import RunFolder
from gptkit.runs.placing import Placement
from gptkit.runs.run import Run, load
from gptkit.runs.spec import ExperimentSpec

__all__ = ["convert_model", "import_model"]

CONFIG, TOKENIZER = "config.json", "tokenizer.json"


def import_model(path: str | Path, folder: str | Path, **options: Any) -> Run:
    """The model of a folder as transformers saves it, or of a GGUF file, as a run.

    ::

        run = gptkit.import_model("SmolLM2-135M", "runs/smollm2")

    Args:
        path, folder, options: as for `convert_model`.

    Raises:
        ExternalModelError: the model cannot be imported; says which key or tensor is at fault.
    """
    return load(convert_model(path, folder, **options), registry=options.get("registry"))


def convert_model(
    path: str | Path,
    folder: str | Path,
    *,
    tokenizer: str | Mapping[str, Any] | None = None,
    name: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    registry: Registry | None = None,
) -> Path:
    """Write a run for the model of a folder or file, tensor by tensor, in the memory that the largest takes.

    Args:
        path: the folder, with config.json, safetensors and tokenizer.json; or a GGUF file.
        folder: the run's.
        tokenizer: another tokenizer, as a spec file would have it.
        name: the experiment's; the source's by default.
        overwrite: replace the run in the directory, when the new one is complete.
        progress: told how many bytes of how many are written.
        registry: where families and components are looked up; by default what is installed.

    Returns:
        The run's folder.

    Raises:
        ExternalModelError: a key or tensor is not understood, missing or damaged.
        CheckpointError: the directory holds a run already or other files, or another process writes into it.
    """
    source, there = Path(path), RunFolder(folder)
    files: TensorFiles | GgufModel
    if source.is_file():
        files = GgufModel(source, registry)
        place, config, family = str(source), files.config, files.family
    elif source.is_dir():
        place = str(source / CONFIG)
        config = read_json(source / CONFIG)
        family = find_family(config, place, registry)
        files = TensorFiles(source)
    else:
        hint = "Give a folder with config.json and model.safetensors, or a GGUF file."
        raise ExternalModelError(f"{source}: no such folder or file", hint=hint)
    model = read_model(family, config, place, registry)
    with contextlib.ExitStack() as stack:
        if tokenizer is None and isinstance(files, GgufModel):
            # The run's own copy is what its spec names: the file has none to point at.
            tokenizer, lies_in = files.vocabulary().unpack(stack.enter_context(TemporaryDirectory()), there.tokenizer)
        else:
            tokenizer, lies_in = _tokenizer(source, tokenizer), None
        spec = _experiment(model, name or _stem(source) or "imported", tokenizer, registry)
        try:
            shell = GPT(spec.model, device="meta")
        except (RuntimeError, OverflowError) as error:
            raise ExternalModelError(f"{place} describes a model that cannot be built: {error}") from None
        moves = pair(family, shell)
        where = check_tensors(family, shell, moves, files.entries, str(source))
        try:
            words = (spec.tokenizer if lies_in is None else spec.tokenizer.model_copy(update=lies_in)).fit(iter(()))
        except TokenizerError as error:
            if lies_in is None:
                raise
            # The place in the message is one that the user never saw.
            raise ExternalModelError(f"{source}: its tokenizer {error.message.rpartition('tokenizer.json: ')[2]}") from None
    if spec.model.vocab_size is not None and words.vocab_size > spec.model.vocab_size:
        raise ExternalModelError(f"{source}: the tokenizer has {words.vocab_size} ids, the model {spec.model.vocab_size}")

    there.recover()
    _require_allowed(there, overwrite)
    with there.lock():
        placement = Placement(there)
        placement.recover()
        _require_allowed(there, overwrite)
        try:
            new = RunFolder(placement.begin())
            _write_tokenizer(new, words)
            _convert(new, moves, files, where, progress)
            new.write_spec(spec)
            written = [path.relative_to(new.path).as_posix() for path in sorted(new.path.rglob("*")) if path.is_file()]
            written = ["provenance.json", *(name for name in written if not name.startswith("checkpoints/"))]
            imported = {"family": family.name, "from": source.name}
            new.write_provenance(spec, registry, imported=imported, base=str(Path.cwd()), files=written)
            placement.place(written)
            placement.commit()
        except BaseException:
            placement.recover()
            raise
    return there.path


def _require_allowed(there: RunFolder, overwrite: bool) -> None:
    there.require_no_file()
    if not (overwrite and there.holds_run):
        there.require_free()


def _experiment(model: Any, name: str, tokenizer: Any, registry: Registry | None) -> ExperimentSpec:
    data = {"name": name[:200], "tokenizer": tokenizer, "model": model.model_dump(mode="json")}
    return validate_data(data, ExperimentSpec, registry)


def _stem(source: Path) -> str:
    return source.stem if source.is_file() else source.resolve().name


def _tokenizer(source: Path, given: str | Mapping[str, Any] | None) -> Any:
    if given is not None:
        return given
    if not (source / TOKENIZER).is_file():
        hint = "Save it with a fast tokenizer, or name one: --tokenizer byte, say."
        raise ExternalModelError(f"{source} has no {TOKENIZER}", hint=hint)
    return {"name": "hugging-face", "path": str(source.resolve())}


def _write_tokenizer(run: RunFolder, words: Tokenizer) -> None:
    with atomic_directory(run.tokenizer) as new:
        words.save(new)


def _convert(
    there: RunFolder,
    moves: list[Move],
    files: TensorFiles | GgufModel,
    where: Mapping[str, str],
    progress: Callable[[int, int], None] | None,
) -> None:
    def names(move: Move) -> list[str]:
        return [where[name] for name in move.external]

    dtypes = {move.native: _common([files.entries[name].dtype for name in names(move)]) for move in moves}
    # Wider numbers first: then every tensor lies at a multiple of its numbers' size.
    ordered = sorted(moves, key=lambda move: -dtypes[move.native].itemsize)
    entries = {move.native: Entry(tuple(move.like.shape), dtypes[move.native]) for move in ordered}
    total, done = sum(entry.bytes for entry in entries.values()), 0

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for move in ordered:
            dtype = dtypes[move.native]
            yield move.native, move.join([files.get(name).to(dtype) for name in names(move)])

    def report(written: int) -> None:
        nonlocal done
        done += written
        if progress is not None:
            progress(done, total)

    def write(file: Path) -> None:
        write_tensors(file, entries, tensors(), {"aliases": "{}"}, report)

    CheckpointStore(there.checkpoints).adopt(write)


def _common(dtypes: list[torch.dtype]) -> torch.dtype:
    widest = dtypes[0]
    for dtype in dtypes[1:]:
        widest = torch.promote_types(widest, dtype)
    return widest
