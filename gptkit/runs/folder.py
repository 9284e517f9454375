"""A run's folder: what lies where in it, and that only one training writes into it.

::

    runs/tiny/
      spec.yaml          the resolved spec, every default written out
      provenance.json    which distribution brought each component, versions, the spec's hash
      tokenizer/         the tokenizer, to be loaded without its corpus
      data/              the corpus as tokens; may be removed when the training is done
      checkpoints/       see gptkit.checkpoint.store
      metrics.jsonl      one JSON object a line
      samples.txt        what the model wrote on the way
      loss.png           the losses over the steps
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch
from packaging.utils import canonicalize_name

import gptkit
from gptkit.checkpoint.store import CheckpointStore, write_text
from gptkit.core.errors import CheckpointError, RequirementError, SpecError, UnknownComponentError
from gptkit.core.registry import DISABLE, Plugin, Registry, default_registry
from gptkit.files import dump_yaml, read, validate
from gptkit.runs.spec import ExperimentSpec

__all__ = ["RunFolder"]

_OWN_FILES = ("spec.yaml", "provenance.json", "metrics.jsonl", "samples.txt", "loss.png")
_OWN_FOLDERS = ("tokenizer", "data", "checkpoints")
_HEAD = "# Written by gptkit "


class RunFolder:
    """Paths of a run's folder, and what is read from and written into it."""

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
        """Whether a training has begun here."""
        return self.spec.is_file()

    def require_run(self) -> None:
        """Raise unless there is a run here.

        Raises:
            CheckpointError: there is none; says what is there.
        """
        if self.holds_run:
            return
        if not self.path.exists():
            raise CheckpointError(f"{self.path}: no such run", hint="Give the folder that was trained into.")
        raise CheckpointError(f"{self.path} is no run: it has no spec.yaml", hint="Give the folder that was trained into.")

    def require_no_file(self) -> None:
        """Raise where a file stands in the folder's place.

        Raises:
            CheckpointError: says so.
        """
        for path in (self.path, *self.path.parents):
            if path.exists() and not path.is_dir():
                hint = "Name a folder, as in runs/gpt; a corpus is named by the spec: --set data.path=FILE."
                raise CheckpointError(f"{path} is a file, and a run needs a folder", hint=hint)

    def require_free(self) -> None:
        """Raise where a training would write over something.

        Raises:
            CheckpointError: there is a run here, or another file with a name that a run needs.
        """
        if self.holds_run:
            steps = CheckpointStore(self.checkpoints).steps()
            reached = f"which has reached step {steps[-1]}" if steps else "which has no checkpoint yet"
            raise CheckpointError(
                f"{self.path} already holds a run, {reached}",
                hint="Go on (resume=True, --resume), replace it (overwrite=True, --overwrite), or take another folder.",
            )
        taken = [name for name in (*_OWN_FILES, *_OWN_FOLDERS) if (self.path / name).exists()]
        if taken:
            raise CheckpointError(
                f"{self.path} is no run, and has {', '.join(taken)}, where a run would write", hint="Choose another folder."
            )

    @property
    def unstarted(self) -> bool:
        """Whether all there is here is a start that saved no checkpoint: one that failed, say, or still goes on."""
        return self._our_spec and "spec_sha256" in self.read_provenance() and not CheckpointStore(self.checkpoints).steps()

    @property
    def _our_spec(self) -> bool:
        if not self.holds_run:
            return False
        with self.spec.open(encoding="utf-8", errors="replace") as file:
            return file.readline().startswith(_HEAD)

    def clear_unstarted(self) -> None:
        """Remove what a start without a checkpoint left; what somebody put here since stays, under whatever name."""
        if not self.unstarted:
            return
        made = self.read_provenance().get("made", [])
        for folder in (self.tokenizer, self.data):
            if folder.name in made:
                shutil.rmtree(folder, ignore_errors=True)
        if self.checkpoints.is_dir():
            CheckpointStore(self.checkpoints).clean()
            with contextlib.suppress(OSError):
                self.checkpoints.rmdir()
        for name in reversed(_OWN_FILES):
            (self.path / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the run; whatever else lies in the folder stays."""
        # The spec goes last: as long as it is there, a half removed run is still known for one.
        for name in _OWN_FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in reversed(_OWN_FILES):
            (self.path / name).unlink(missing_ok=True)

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
        """Note who brought what; `more` is noted too."""
        found = {
            "spec_sha256": spec.sha256,
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
        """What `write_provenance` noted; empty where the file is missing."""
        try:
            found = json.loads(self.provenance.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.provenance} is damaged: {error}") from None
        if not isinstance(found, dict):
            raise CheckpointError(f"{self.provenance} is damaged: it holds no mapping")
        return found

    def lock(self) -> Lock:
        """The right to write here, as a context."""
        return Lock(self.path / ".lock")


def _same_distribution(origin: str, plugin: Plugin) -> bool:
    """Whether an origin, as provenance has it (``gptkit-max==1.0``), is a plugin's distribution in any version."""
    return canonicalize_name(origin.partition("==")[0]) == canonicalize_name(plugin.distribution)


class Lock:
    """A file that one process at a time can hold. The system lets go of it when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> Lock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a+", encoding="utf-8")
        try:
            _lock(file)
        except OSError:
            file.seek(0)
            holder = file.read(20).strip()
            file.close()
            raise CheckpointError(
                f"{self._path.parent} is being trained into by another process{f' ({holder})' if holder else ''}",
                hint="Wait for it or stop it, or choose another folder.",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # The file stays: removing it would let two processes hold two files of the same name.
        if self._file is not None:
            self._file.close()
            self._file = None


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str]) -> None:
        # Far behind the text, so that others can still read who holds it.
        file.seek(1 << 20)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
