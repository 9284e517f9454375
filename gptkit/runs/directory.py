"""Run directories: their files, the files that gptkit wrote, and checks before writing.

A directory is a run only if gptkit created it: its spec.yaml begins with gptkit's line, and it has a provenance.json.

::

    runs/tiny/
      spec.yaml          the resolved spec, every default written out
      provenance.json    the distribution of each component, versions, the spec's hash, the files that gptkit wrote
      tokenizer/         the tokenizer, to be loaded without its corpus
      data/              the corpus as tokens; may be removed when the training is done
      checkpoints/       see gptkit.checkpoint.store
      metrics.jsonl      one JSON object per line
      samples.txt        text that the model generated during the training
      loss.png           the losses over the steps
      training.html      all metrics as curves; reloads itself during the training
      summary.json       losses, tokens, time and operations of the training
"""

from __future__ import annotations

import contextlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch

import gptkit
from gptkit.checkpoint.store import CheckpointStore
from gptkit.core.atomic import reading, write_text
from gptkit.core.commands import command
from gptkit.core.errors import CheckpointError, FileError, SpecError
from gptkit.core.lock import Lock
from gptkit.core.outputs import RUN_HEAD
from gptkit.core.paths import real
from gptkit.core.registry import Registry, default_registry
from gptkit.core.suggestions import did_you_mean
from gptkit.data.prepared import token_files, unindexed_files
from gptkit.files import dump_yaml, read, validate
from gptkit.runs.moved import current_base
from gptkit.runs.placing import Placement
from gptkit.runs.spec import ExperimentSpec
from gptkit.runs.versions import naming_versions, require_components

__all__ = ["RunDirectory", "suggestion"]

WRITTEN_IN_TRAINING = ("metrics.jsonl", "samples.txt", "loss.png", "training.html", "summary.json")
_OWN_FILES = ("spec.yaml", "provenance.json", *WRITTEN_IN_TRAINING)
_OWN_DIRECTORIES = ("tokenizer", "data", "checkpoints")
_SPECS = (".yaml", ".yml", ".toml", ".json")
_KINDS: Mapping[tuple[str, ...], type] = {
    ("components",): dict,
    ("imported",): dict,
    ("imported", "family"): str,
    ("imported", "generation"): dict,
    ("imported", "language_model_of"): str,
    ("imported", "token_settings"): dict,
    ("base",): str,
    ("base_from_run",): str,
}
"""The types of entries of provenance.json that are used."""


class RunDirectory:
    """A run directory: paths, reading and writing of its files."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.spec = self.path / "spec.yaml"
        self.provenance = self.path / "provenance.json"
        self.tokenizer = self.path / "tokenizer"
        self.data = self.path / "data"
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.samples = self.path / "samples.txt"
        self.plot = self.path / "loss.png"
        self.page = self.path / "training.html"
        self.summary = self.path / "summary.json"

    @property
    def holds_run(self) -> bool:
        """Whether the directory is a run that gptkit created."""
        return self._why_no_run() is None

    @property
    def has_checkpoint(self) -> bool:
        """Whether the run has a checkpoint to resume from or to load."""
        return bool(CheckpointStore(self.checkpoints).steps())

    @property
    def unstarted(self) -> bool:
        """Whether the directory is a run without a checkpoint: its training failed, was killed, or has just started."""
        return self.holds_run and not self.has_checkpoint

    def _why_no_run(self) -> str | None:
        if not self.spec.is_file():
            return "it has no spec.yaml"
        with reading(self.spec), self.spec.open(encoding="utf-8", errors="replace") as file:
            if not file.readline().startswith(RUN_HEAD):
                return f"its spec.yaml does not begin with the line that gptkit writes ({RUN_HEAD}…)"
        return None if self.provenance.is_file() else "it has no provenance.json"

    def require_run(self) -> None:
        """Raise unless the directory is a run. If overwriting it was interrupted, restore the previous run first.

        Raises:
            CheckpointError: it is not a run; gives the reason.
        """
        self.recover()
        why = self._why_no_run()
        if why is None:
            return
        hint = "Pass a run directory, as created by gptkit train or gptkit import."
        if self.path.is_file():
            if self.path.suffix.lower() in _SPECS:
                what = "is a spec file, not a run"
                hint = f"Train it first: {command('gptkit train', self.path)}; then pass its run directory."
            else:
                what = "is a file, but a run is a directory"
                if self.path.suffix.lower() == ".gguf":
                    hint = f"A model is imported first: {command('gptkit import', self.path, 'RUN')}"
            raise CheckpointError(f"{self.path} {what}", hint=hint)
        if not self.path.exists():
            raise CheckpointError(f"{self.path}: run not found{suggestion(self.path)}", hint=hint)
        if (self.path / "config.json").is_file():
            hint = f"A model of transformers is imported first: {command('gptkit import', self.path, 'RUN')}"
        elif not self.spec.is_file() and (spec := next(_spec_files(self.path), None)) is not None:
            hint = f"It has a spec file: pass {spec}, or a run that was trained with it."
        elif not self.spec.is_file() and (names := _runs_in(self.path)):
            hint = f"It has runs: pass {self.path / names[0]}, or another one of {command('gptkit runs', self.path)}"
        elif self.spec.is_file() and (weights := sorted(self.checkpoints.glob("*/model.safetensors"))):
            hint = f"Restore the file from a copy of the run. Its weights are in {weights[-1]}."
        raise CheckpointError(f"{self.path} is not a run: {why}", hint=hint)

    def recover(self) -> None:
        """Finish or undo the replacement of the run by a process that was killed.

        Raises:
            CheckpointError: the files cannot be moved.
        """
        placement = Placement(self)
        if not placement.interrupted:
            return
        lock = self.lock()
        try:
            with lock:
                placement.recover()
        except CheckpointError:
            # Another process is writing into the directory: nothing was interrupted.
            return
        except FileError as error:
            raise CheckpointError(
                f"overwriting the run in {self.path} was interrupted, and its files cannot be restored: {error.message}",
                hint="No files are lost: run the command again as a user with write permission.",
            ) from error

    def require_no_file(self) -> None:
        """Raise an error if the path, or one of its parents, is a file.

        Raises:
            CheckpointError: the path is a file; names it.
        """
        for path in (self.path, *self.path.parents):
            if path.exists() and not path.is_dir():
                hint = "Pass a directory such as runs/gpt; a corpus is set in the spec: --set data.path=FILE."
                if path.suffix.lower() in _SPECS:
                    hint = f"The spec file is the first argument: {command('gptkit train', path, 'RUN')}"
                raise CheckpointError(f"{path} is a file, but a run requires a directory", hint=hint)

    def require_free(self, *, resumable: bool = False) -> None:
        """Raise an error if a new run would replace files.

        Args:
            resumable: the caller could resume the run that the directory holds; for the hint.

        Raises:
            CheckpointError: the directory is a run, or has another file with the name of a run's file.
        """
        if self.holds_run:
            steps = CheckpointStore(self.checkpoints).steps()
            way = "Resume it with --resume (resume=True), replace" if resumable else "Replace"
            reached = f"which has reached step {steps[-1]}" if steps else "which has no checkpoint yet"
            raise CheckpointError(
                f"{self.path} already holds a run, {reached}",
                hint=f"{way} it with --overwrite (overwrite=True), or choose another name.",
            )
        names = (*_OWN_FILES, *_OWN_DIRECTORIES)
        taken = [name for name in names if (self.path / name).exists() or (self.path / name).is_symlink()]
        if taken:
            raise CheckpointError(
                f"{self.path} is not a run, but contains {', '.join(taken)}, which a run would replace",
                hint="Choose another directory. gptkit replaces only files that it wrote.",
            )

    def own_files(self) -> list[Path]:
        """Return every file in the directory that gptkit wrote; no files of the user."""
        if not self.provenance.is_file():
            return []
        top = real(self.path)
        noted = [self.path / name for name in self._noted() if ".." not in name.parts and not name.is_absolute()]
        tokens = token_files(self.data) or unindexed_files(self.data)
        files = [*noted, *tokens, *CheckpointStore(self.checkpoints).own_files()]
        # Provenance is untrusted: files outside of the directory, also through links, do not belong to the run.
        inside = (file for file in files if file.is_file() and real(file.parent).is_relative_to(top))
        return list(dict.fromkeys(file for file in inside if not _through_link(self.path, file)))

    def _noted(self) -> list[PurePosixPath]:
        provenance = self.read_provenance()
        names = provenance.get("files")
        if not isinstance(names, list):
            # A run of an earlier version, which did not list its files.
            names = [*_OWN_FILES, "tokenizer/gptkit-tokenizer.json", "tokenizer/tokenizer.json", "tokenizer/ranks.tiktoken"]
        return [PurePosixPath(name) for name in ("spec.yaml", "provenance.json", *names) if isinstance(name, str)]

    def require_unused(self, names: Sequence[str]) -> None:
        """Raise an error if a file that gptkit will write exists and was not written by gptkit.

        Args:
            names: the files, relative to the directory.

        Raises:
            CheckpointError: such a file exists; names the first.
        """
        own = set(self.own_files())
        for name in names:
            path = self.path / name
            if (path.exists() or path.is_symlink()) and path not in own:
                raise CheckpointError(
                    f"{path} was not written by gptkit, and the training would overwrite it",
                    hint="Move it, then repeat the command.",
                )

    def write_spec(self, spec: ExperimentSpec) -> None:
        head = f"{RUN_HEAD}{gptkit.__version__}: the resolved spec, sha256 {spec.sha256}\n"
        write_text(self.spec, head + dump_yaml(spec.plain()))

    def read_spec(self, registry: Registry | None = None) -> ExperimentSpec:
        """Return the run's spec.

        Raises:
            RequirementError: a component's distribution is missing; names the version that the run was created with.
            SpecError: the file was changed and is invalid.
        """
        self.require_run()
        try:
            return validate(read(self.spec), ExperimentSpec, registry)
        except SpecError:
            self.require_components(registry)
            with naming_versions(self.read_provenance(), registry):
                raise

    def require_components(self, registry: Registry | None = None) -> None:
        """Raise an error if a component of the run is missing.

        Raises:
            RequirementError: names the distribution that is missing, broken, disabled, or lacks the component.
        """
        require_components(self.path, self.read_provenance(), registry)

    def write_provenance(self, spec: ExperimentSpec, registry: Registry | None = None, **more: Any) -> None:
        """Write the provenance: the distribution of each component, versions, and `more`."""
        result = {
            "spec_sha256": spec.sha256,
            "spec": spec.plain(),
            "components": (registry or default_registry()).provenance(spec.components()),
            "versions": {
                "gptkit": gptkit.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "platform": f"{platform.system()} {platform.machine()}",
            **more,
        }
        write_text(self.provenance, json.dumps(result, indent=2) + "\n")

    def read_provenance(self) -> dict[str, Any]:
        """Return the content of provenance.json; empty if the file is missing.

        If the run was moved together with its spec, `base` is the new directory.

        Raises:
            CheckpointError: the file is damaged.
            FileError: the file may not be read.
        """
        with reading(self.provenance):
            notes = self._read_provenance()
        base = current_base(notes, self.path)
        return notes if base is None else {**notes, "base": base}

    @property
    def base_is_missing(self) -> bool:
        """Whether the recorded base directory of the spec's relative paths does not exist."""
        with reading(self.provenance):
            base = self._read_provenance().get("base")
        return base is not None and not Path(base).is_dir()

    def _read_provenance(self) -> dict[str, Any]:
        try:
            result = json.loads(self.provenance.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except PermissionError:
            raise
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.provenance} is damaged: {error}") from None
        if not isinstance(result, dict):
            raise CheckpointError(f"{self.provenance} is damaged: it is not a JSON object")
        for path, kind in _KINDS.items():
            value: Any = result
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None and not isinstance(value, kind):
                raise CheckpointError(f"{self.provenance} is damaged: {'.'.join(path)} is {value!r:.60}")
        for component, origin in (result.get("components") or {}).items():
            if not isinstance(origin, str):
                raise CheckpointError(f"{self.provenance} is damaged: components.{component} is {origin!r:.60}")
        return {key: value for key, value in result.items() if value is not None}

    def lock(self) -> Lock:
        """Return the lock of the directory, a context manager."""
        return Lock(self.path / ".lock")


def _through_link(top: Path, file: Path) -> bool:
    return any(parent.is_symlink() for parent in file.parents if top in parent.parents)


def _spec_files(directory: Path) -> Iterator[Path]:
    """Yield the files of a directory with the suffix of a spec, but not those with which models are published."""
    with contextlib.suppress(OSError):
        for file in sorted(directory.iterdir()):
            if file.suffix.lower() in (".yaml", ".yml", ".toml") and file.is_file():
                yield file


def suggestion(path: Path) -> str:
    """Return the runs beside a missing one, as the end of a message; empty without any."""
    names = _runs_in(path.parent)
    return f"; {did_you_mean(path.name, names, f'runs in {path.parent}')}" if names else ""


def _runs_in(directory: Path) -> list[str]:
    """Return the names of the runs in a directory; none if it cannot be read."""
    try:
        return sorted(each.name for each in directory.iterdir() if RunDirectory(each).holds_run)
    except (OSError, ValueError):
        return []
