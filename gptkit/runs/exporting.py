"""Export of a run as an external model."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from gptkit.checkpoint.entries import MODEL
from gptkit.checkpoint.safetensors import named_tensors, require_fit
from gptkit.checkpoint.store import CheckpointStore, read_state
from gptkit.core.atomic import writing
from gptkit.core.errors import CheckpointError, ExternalModelError
from gptkit.core.paths import real
from gptkit.core.registry import Registry
from gptkit.interop.selection import export_format
from gptkit.interop.tensor_files import TensorFiles
from gptkit.kinds.format import FormatSpec, NativeModel, Progress, TensorEntry, Tensors
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.model.gpt import GPT
from gptkit.model.merging import has_adapters, merged_spec
from gptkit.model.spec import ModelSpec
from gptkit.nn.freezing import adapted_modules, adapter_names
from gptkit.runs.directory import RunDirectory
from gptkit.runs.measured import measured
from gptkit.runs.tokenizers import load_tokenizer
from gptkit.text.chat import turn_end

__all__ = ["Exported", "export", "export_model", "native_model"]


@dataclass(frozen=True)
class Exported:
    """An export.

    Attributes:
        path: the file or directory.
        remarks: sentences for the user about the export: what was written (`Note`), and what the format could not store.
        report: sentences about what was checked, and how much the logits differ; empty if the export was not compared.
    """

    path: Path
    remarks: Sequence[str] = ()
    report: Sequence[str] = ()


def export_model(
    run: str | Path,
    path: str | Path | None = None,
    *,
    to: str | Mapping[str, Any] | FormatSpec | None = None,
    family: str | None = None,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> Path:
    """Export a run's newest weights, its tokenizer and its configuration.

    ::

        gptkit.export_model("runs/gpt", "exports/gpt")                                  # for transformers and vLLM
        gptkit.export_model("runs/gpt", "gpt.gguf", to={"name": "gguf", "type": "f16"})   # for llama.cpp

    Args:
        run: the run directory.
        path: the file or directory to write, whose parents are created; by default exports/ and the run's name.
        to: the format: a name, or its spec with options; by default that of the path's suffix, or hugging-face.
        family: the family to export as; by default one that can express the model.
        progress: receives the number of bytes written and the total.
        registry: where formats, families and components are looked up; by default what is installed.

    Returns:
        The file or directory.

    Raises:
        ExternalModelError: the path exists, or the format or no family can express the model; gives the reason.
        CheckpointError: the directory is not a run, or the run has no checkpoint.
    """
    return export(run, path, to=to, family=family, progress=progress, registry=registry).path


def export(
    run: str | Path,
    path: str | Path | None = None,
    *,
    to: str | Mapping[str, Any] | FormatSpec | None = None,
    options: Mapping[str, Any] | None = None,
    family: str | None = None,
    compare: bool = False,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> Exported:
    """Export a run as `export_model` does, and return the remarks of the format and a report.

    Args:
        options: fields of the format that override those of `to`.
        compare: read the export back and compare its logits with the run's.
        run, path, to, family, progress, registry: as for `export_model`.
    """
    directory = RunDirectory(run)
    chosen = export_format(to, None if path is None else Path(path), registry, options)
    target = Path(path) if path is not None else Path("exports") / (real(directory.path).name + "".join(chosen.suffixes[:1]))
    model = native_model(directory, registry=registry)
    _require_free(target, chosen)
    with ExitStack() as stack:
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = stack.enter_context(TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent))
        made = Path(temporary) / target.name
        remarks = chosen.write(model, made, family=family, progress=progress, registry=registry)
        _place(made, target)
    # A program has been compared by `write`, which reports it as remarks.
    compare = compare and not chosen.is_program
    return Exported(target, remarks, _report(model, chosen, target, registry) if compare else ())


def _report(model: NativeModel, chosen: FormatSpec, target: Path, registry: Registry | None) -> Sequence[str]:
    try:
        return measured(model, chosen, target, registry)
    except ExternalModelError as error:
        # The format has code of its own for a model that no installed family expresses.
        return [f"not compared, since gptkit cannot read the export back: {error.message}"]


def _require_free(target: Path, chosen: FormatSpec) -> None:
    if RunDirectory(target).holds_run:
        raise ExternalModelError(f"{target} is a run, which an export does not replace", hint="Choose another path.")
    for parent in target.parents:
        if parent.exists() and not parent.is_dir():
            raise ExternalModelError(f"{parent} is a file, not a directory", hint="Choose another path.")
    if target.is_symlink() or target.is_file():
        raise ExternalModelError(f"{target} already exists", hint="Choose another path, or remove it.")
    if target.is_dir() and chosen.suffixes:
        raise ExternalModelError(f"{target} is a directory, but {chosen.component_name()} writes a file")
    if target.exists() and chosen.detect(target).score > 0:
        raise ExternalModelError(f"{target} already holds a model", hint="Choose another path.")


def _place(made: Path, target: Path) -> None:
    """Move the export to its path; files are moved into an existing directory if none is replaced."""
    with writing(target):
        if not target.exists():
            made.rename(target)
            return
        if made.is_file():
            raise ExternalModelError(f"{target} already exists", hint="Choose another path, or remove it.")
        files = sorted(made.iterdir(), key=lambda file: file.stat().st_mtime_ns)
        taken = [file.name for file in files if (target / file.name).exists() or (target / file.name).is_symlink()]
        if taken:
            what = f"{target} has {', '.join(taken)}, which the export would replace"
            raise ExternalModelError(what, hint="Choose another path.")
        moved: list[Path] = []
        try:
            # In the order of writing: a format writes the file that marks a complete model last.
            for file in files:
                moved.append(file.rename(target / file.name))
        except BaseException:
            for file in moved:
                file.unlink(missing_ok=True)
            raise


def native_model(
    directory: RunDirectory, *, step: int | None = None, verify: bool = True, registry: Registry | None = None
) -> NativeModel:
    """Return a run's weights and the other data that formats write.

    Args:
        directory: the run directory.
        step: the step of the checkpoint; the newest by default.
        verify: compare the checksum of the weights, which reads them; unnecessary after `gptkit.load`, which has done so.
        registry: where components are looked up; by default what is installed.

    Raises:
        CheckpointError: the run has no checkpoint, it is damaged, or does not fit the spec.
    """
    spec = directory.read_spec(registry)
    store = CheckpointStore(directory.checkpoints)
    latest = store.latest() if step is None else store.path(step)
    if latest is None:
        raise CheckpointError(f"{directory.path} has no checkpoint yet", hint="Resume the training until it saves one.")
    state = read_state(latest, verify={MODEL} if verify else False)
    tokenizer = load_tokenizer(spec, directory)
    files = TensorFiles(latest / MODEL)
    tensors: Tensors = files
    model = spec.model.model_copy(update={"vocab_size": spec.model.vocab_size or _rows(spec.model, tensors)})
    if has_adapters(model):
        tensors, model = MergedTensors(model, latest), merged_spec(model)
    else:
        require_fit(GPT(model, device="meta"), {name: entry.shape for name, entry in files.entries.items()}, latest / MODEL)
    imported = directory.read_provenance().get("imported", {})
    return NativeModel(
        name=spec.name,
        spec=model,
        tensors=tensors,
        tokenizer=tokenizer,
        family=imported.get("family"),
        generation=imported.get("generation") or _generation(tokenizer),
        token_settings=imported.get("token_settings", {}),
        checksum=json.dumps(state["files"][MODEL], sort_keys=True),
    )


class MergedTensors:
    """Weights of a checkpoint with its adapters merged; each is read and computed on request.

    A projection with an adapter is merged from its own tensors alone, so that no other tensor is in memory.

    Args:
        spec: the model, with adapters.
        checkpoint: the checkpoint's directory.

    Raises:
        CheckpointError: the file of the weights does not fit the model.
    """

    def __init__(self, spec: ModelSpec, checkpoint: Path) -> None:
        self._files = TensorFiles(checkpoint / MODEL)
        model = GPT(spec, device="meta")
        own = named_tensors(model)
        stored = {name: entry.shape for name, entry in self._files.entries.items()}
        self._sources = require_fit(model, stored, checkpoint / MODEL)
        self._dtypes = {name: tensor.dtype for name, tensor in own.items()}
        self._adapted = {f"{name}.weight": (name, module) for name, module in adapted_modules(model)}
        adapters = adapter_names(model)
        # Tied tensors once, under their first name, as in a file.
        first = {id(tensor): name for name, tensor in reversed(own.items())}
        kept = {name: tensor for name, tensor in own.items() if first[id(tensor)] == name and name not in adapters}
        self.entries = {name: TensorEntry(tuple(tensor.shape), tensor.dtype) for name, tensor in kept.items()}

    @torch.no_grad()
    def get(self, name: str) -> Tensor:
        """Return one tensor."""
        if name not in self._adapted:
            return self._read(name)
        prefix, module = self._adapted[name]
        filled = {own: self._read(f"{prefix}.{own}") for own in named_tensors(module)}
        merged = copy.deepcopy(module)  # on the meta device, without memory
        merged.load_state_dict(filled, assign=True)
        return merged.transformed_weight()

    def _read(self, name: str) -> Tensor:
        return self._files.get(self._sources[name]).to(self._dtypes[name])


def _generation(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the ids that end a reply, for a tokenizer whose chat template has an end-of-turn token."""
    turn = turn_end(tokenizer) if tokenizer.chat_template is not None else None
    if turn is None:
        return {}
    ends = (tokenizer.end_id, tokenizer.special_tokens[turn])
    return {"eos_token_id": list(dict.fromkeys(end for end in ends if end is not None))}


def _rows(model: ModelSpec, tensors: Tensors) -> int:
    """Return the number of rows of the embedding's table."""
    embedding = GPT(model, vocab_size=1, device="meta").embedding
    name = next(name for name, parameter in embedding.named_parameters() if parameter is embedding.table_VE)
    return tensors.entries[f"embedding.{name}"].shape[0]
