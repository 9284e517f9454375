"""The run directory: its files, which of them gptkit wrote, and the checks before anything is written into it.

A directory is a run only if gptkit made it: its spec.yaml begins with gptkit's own line, and it has a provenance.json.

::

    runs/tiny/
      spec.yaml          the resolved spec, every default written out
      provenance.json    the distribution of each component, versions, the spec's hash, the files that gptkit wrote
      tokenizer/         the tokenizer, to be loaded without its corpus
      data/              the corpus as tokens; may be removed when the training is done
      checkpoints/       see gptkit.checkpoint.store
      metrics.jsonl      one JSON object a line
      samples.txt        text that the model generated during the training
      loss.png           the losses over the steps
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from packaging.utils import canonicalize_name

import gptkit
from gptkit.checkpoint.store import CheckpointStore
from gptkit.core.atomic import reading, write_text
from gptkit.core.errors import CheckpointError, FileError, RequirementError, SpecError, UnknownComponentError
from gptkit.core.paths import real
from gptkit.core.registry import DISABLE, Plugin, Registry, default_registry
from gptkit.data.preparation import token_files
from gptkit.files import dump_yaml, read, validate
from gptkit.runs.lock import Lock
from gptkit.runs.placing import Placement
from gptkit.runs.spec import ExperimentSpec

__all__ = ["RunDirectory"]

WRITTEN_IN_TRAINING = ("metrics.jsonl", "samples.txt", "loss.png")
_OWN_FILES = ("spec.yaml", "provenance.json", *WRITTEN_IN_TRAINING)
_OWN_DIRECTORIES = ("tokenizer", "data", "checkpoints")
_SPECS = (".yaml", ".yml", ".toml", ".json")
_HEAD = "# Written by gptkit "


class RunDirectory:
    """Paths of a run's directory, and what is read from and written into it."""

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

    @property
    def holds_run(self) -> bool:
        """Whether the directory is a run: one that gptkit made."""
        return self._why_no_run() is None

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from or to load."""
        return bool(CheckpointStore(self.checkpoints).steps())

    @property
    def unstarted(self) -> bool:
        """Whether the directory is a run without a checkpoint: its training failed, was killed, or has just begun."""
        return self.holds_run and not self.has_checkpoint

    def _why_no_run(self) -> str | None:
        if not self.spec.is_file():
            return "it has no spec.yaml"
        with reading(self.spec), self.spec.open(encoding="utf-8", errors="replace") as file:
            if not file.readline().startswith(_HEAD):
                return f"its spec.yaml does not begin with the line that gptkit writes ({_HEAD}…)"
        return None if self.provenance.is_file() else "it has no provenance.json"

    def require_run(self) -> None:
        """Raise unless the directory is a run. Restores the previous run first where overwriting it was interrupted.

        Raises:
            CheckpointError: it is not; says why.
        """
        self.recover()
        why = self._why_no_run()
        if why is None:
            return
        hint = "Give the directory of a run, as gptkit train or gptkit import made it."
        if self.path.is_file():
            if self.path.suffix.lower() in _SPECS:
                what, hint = (
                    "is a spec file, not a run",
                    f"Train it first: gptkit train {self.path}, then give its run directory.",
                )
            else:
                what = "is a file, and a run is a directory"
            raise CheckpointError(f"{self.path} {what}", hint=hint)
        if not self.path.exists():
            raise CheckpointError(f"{self.path}: no such run", hint=hint)
        raise CheckpointError(f"{self.path} is not a run: {why}", hint=hint)

    def recover(self) -> None:
        """Finish or undo what a process that was killed while it replaced the run left behind.

        Raises:
            CheckpointError: the files cannot be moved; says what to do.
        """
        placement = Placement(self)
        if not placement.interrupted:
            return
        lock = self.lock()
        try:
            with lock:
                placement.recover()
        except CheckpointError:
            # Another process is at work here: nothing was interrupted.
            return
        except FileError as error:
            raise CheckpointError(
                f"overwriting the run in {self.path} was interrupted, and its files cannot be restored: {error.message}",
                hint="Nothing is lost: run the command again as a user who may write there.",
            ) from error

    def require_no_file(self) -> None:
        """Raise where the path, or one of its parents, is a file.

        Raises:
            CheckpointError: names the file.
        """
        for path in (self.path, *self.path.parents):
            if path.exists() and not path.is_dir():
                hint = "Name a directory, as in runs/gpt; a corpus is named by the spec: --set data.path=FILE."
                raise CheckpointError(f"{path} is a file, and a run needs a directory", hint=hint)

    def require_free(self) -> None:
        """Raise where a new run would replace something.

        Raises:
            CheckpointError: the directory is a run, or has another file with a name that a run needs.
        """
        if self.holds_run:
            steps = CheckpointStore(self.checkpoints).steps()
            reached = f"which has reached step {steps[-1]}" if steps else "which has no checkpoint yet"
            raise CheckpointError(
                f"{self.path} already holds a run, {reached}",
                hint="Resume it (resume=True, --resume), replace it (overwrite=True, --overwrite), or choose another name.",
            )
        names = (*_OWN_FILES, *_OWN_DIRECTORIES)
        taken = [name for name in names if (self.path / name).exists() or (self.path / name).is_symlink()]
        if taken:
            raise CheckpointError(
                f"{self.path} is not a run, and has {', '.join(taken)}, where a run would write",
                hint="Choose another directory. gptkit replaces only what it has written itself.",
            )

    def own_files(self) -> list[Path]:
        """Every file in the directory that gptkit wrote; none that a user put there."""
        if not self.provenance.is_file():
            return []
        top = real(self.path)
        noted = [self.path / name for name in self._noted() if ".." not in name.parts and not name.is_absolute()]
        files = [*noted, *token_files(self.data), *CheckpointStore(self.checkpoints).own_files()]
        # A provenance may come from anywhere: what lies outside, through links too, is not the run's.
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
        """Raise where a file that gptkit is going to write exists and is another's.

        Args:
            names: the files, relative to the directory.

        Raises:
            CheckpointError: names the first.
        """
        own = set(self.own_files())
        for name in names:
            path = self.path / name
            if (path.exists() or path.is_symlink()) and path not in own:
                raise CheckpointError(
                    f"{path} was not written by gptkit, and the training would write over it",
                    hint="Move it, then repeat the command.",
                )

    def write_spec(self, spec: ExperimentSpec) -> None:
        head = f"{_HEAD}{gptkit.__version__}: the resolved spec, sha256 {spec.sha256}\n"
        write_text(self.spec, head + dump_yaml(spec.plain()))

    def read_spec(self, registry: Registry | None = None) -> ExperimentSpec:
        """The run's spec.

        Raises:
            RequirementError: a component's distribution is missing; says which version the run was made with.
            SpecError: the file was changed, and is wrong.
        """
        self.require_run()
        try:
            return validate(read(self.spec), ExperimentSpec, registry)
        except SpecError:
            self.require_components(registry)
            raise

    def require_components(self, registry: Registry | None = None) -> None:
        """Raise where a component is not there that the run was made with.

        Raises:
            RequirementError: says which distribution is missing, broken or switched off.
        """
        registry = registry or default_registry()
        missing: dict[str, list[str]] = {}
        for component, origin in self.read_provenance().get("components", {}).items():
            kind, _, name = component.partition(" ")
            try:
                registry.entry(kind, name)
            except UnknownComponentError:
                missing.setdefault(origin, []).append(component)
        if not missing:
            return
        for plugin in registry.plugins():
            origin = next((each for each in missing if _same_distribution(each, plugin)), None)
            if origin is not None and plugin.status != "active":
                needs = f"{self.path} needs {', '.join(missing[origin])} from {plugin.provenance}, which is"
                if plugin.status == "disabled":
                    raise RequirementError(f"{needs} switched off", hint=f"Take it out of {DISABLE}.")
                hint = "Mend it, or install a version that works: gptkit plugins --verbose shows where it fails."
                raise RequirementError(f"{needs} installed but broken: {plugin.error}", hint=hint)
        listed = "; ".join(f"{', '.join(names)} from {origin}" for origin, names in missing.items())
        install = " ".join(f"'{origin}'" for origin in missing)
        raise RequirementError(f"{self.path} needs what is not installed: {listed}", hint=f"Run: pip install {install}")

    def write_provenance(self, spec: ExperimentSpec, registry: Registry | None = None, **more: Any) -> None:
        """Write the provenance: the distribution of each component, versions, and `more`."""
        found = {
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
        write_text(self.provenance, json.dumps(found, indent=2) + "\n")

    def read_provenance(self) -> dict[str, Any]:
        """The content of provenance.json; empty where the file is missing.

        Raises:
            CheckpointError: the file is damaged.
            FileError: the file may not be read.
        """
        with reading(self.provenance):
            return self._read_provenance()

    def _read_provenance(self) -> dict[str, Any]:
        try:
            found = json.loads(self.provenance.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except PermissionError:
            raise
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.provenance} is damaged: {error}") from None
        if not isinstance(found, dict):
            raise CheckpointError(f"{self.provenance} is damaged: it holds no mapping")
        return found

    def lock(self) -> Lock:
        """The right to write into the directory, as a context manager."""
        return Lock(self.path / ".lock")


def _through_link(top: Path, file: Path) -> bool:
    return any(parent.is_symlink() for parent in file.parents if top in parent.parents)


def _same_distribution(origin: str, plugin: Plugin) -> bool:
    """Whether an origin, as provenance has it (``gptkit-max==1.0``), is a plugin's distribution in any version."""
    return canonicalize_name(origin.partition("==")[0]) == canonicalize_name(plugin.distribution)
