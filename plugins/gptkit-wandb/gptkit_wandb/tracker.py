"""Tracker `wandb`."""

from __future__ import annotations

import html
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

import gptkit
from gptkit.core.atomic import write_text
from gptkit.core.outputs import EXPERIMENT, TRIALS
from gptkit.kinds.tracker import Tracker, TrackerSpec, TrainingStart

if TYPE_CHECKING:
    import wandb

__all__ = ["WandbSpec", "WandbTracker"]

_ID = "wandb/gptkit-run-id.txt"
_PROJECT = "gptkit"
_DEFAULTS: dict[str, Any] = {"console": "off", "init_timeout": 20.0, "finish_timeout": 60.0}
"""Settings unless WANDB_… is set: the terminal is not captured, and a connection that is down delays a training briefly."""
_INTERRUPTED = 255
"""Exit code with which wandb itself ends the run of a script after Ctrl-C."""
_log = logging.getLogger("gptkit")


class WandbSpec(TrackerSpec):
    """Weights & Biases run with metrics, samples, the spec and the summary.

    Notes:
        What is not set here is taken from wandb's environment variables and settings files. Without a login or a
        connection the run is recorded offline, in the run directory, and uploaded by ``wandb sync``. A resumed training
        continues its run.
    """

    name: Literal["wandb"] = "wandb"
    project: str | None = Field(None, min_length=1, description=f"Project; WANDB_PROJECT or `{_PROJECT}` by default.")
    entity: str | None = Field(None, min_length=1, description="User or team; WANDB_ENTITY or the user by default.")
    run_name: str | None = Field(
        None, min_length=1, description="Name of the run; WANDB_NAME or the name of the run directory by default."
    )
    group: str | None = Field(
        None,
        min_length=1,
        description="Group of the run; WANDB_RUN_GROUP by default. Trials of an experiment have the name of its directory.",
    )
    tags: tuple[str, ...] = Field((), description="Tags of the run; WANDB_TAGS by default.")
    notes: str | None = Field(None, min_length=1, description="Description of the run; WANDB_NOTES by default.")
    mode: Literal["online", "offline", "disabled"] | None = Field(
        None, description="Where the run is recorded; WANDB_MODE by default, and online if the user is logged in."
    )
    samples: bool = Field(True, description="Record the samples generated during training.")

    def files(self) -> tuple[str, ...]:
        return (_ID,)

    def build(self) -> Tracker:
        return WandbTracker(self)


class WandbTracker(Tracker):
    """Runtime part of `WandbSpec`."""

    def __init__(self, spec: WandbSpec) -> None:
        self.spec = spec
        self._run: wandb.Run | None = None
        self._directory = Path()

    def on_start(self, start: TrainingStart) -> None:
        # Imported where it is used, since the import takes half a second.
        import wandb

        mode = self.spec.mode or wandb.setup().settings.mode
        if mode == "disabled":
            return
        self._directory = start.directory
        arguments = self._arguments(start)
        if mode in ("online", "run", "shared") and not _is_logged_in():
            mode = "offline"
        try:
            self._run = wandb.init(mode=self.spec.mode if mode != "offline" else "offline", **arguments)
        except wandb.Error as error:
            if mode == "offline":
                raise
            _warn(str(error).partition("\n")[0])
            self._run = wandb.init(mode="offline", **arguments)
        write_text(start.directory / _ID, f"{self._run.id}\n")
        # A resumed training reports steps again, and wandb's own counter cannot go back: `step` is the x axis.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step", step_sync=True)

    def _arguments(self, start: TrainingStart) -> dict[str, Any]:
        """Return the arguments of `wandb.init`, except the mode."""
        import wandb

        spec, settings, directory = self.spec, wandb.setup().settings, start.directory
        file = directory / _ID
        # Without completed steps it is a new training, also in the directory of an earlier one.
        run_id = file.read_text(encoding="utf-8").strip() if start.step and file.exists() else None
        experiment = directory.parent.parent
        is_trial = directory.parent.name == TRIALS and (experiment / EXPERIMENT).is_file()
        new_name = None if run_id is not None or settings.run_name else directory.absolute().name
        return {
            "project": spec.project or settings.project or _PROJECT,
            "entity": spec.entity,
            "name": spec.run_name or new_name,
            "group": spec.group or settings.run_group or (experiment.absolute().name if is_trial else None),
            "tags": spec.tags or None,
            "notes": spec.notes,
            "config": dict(start.spec),
            "allow_val_change": True,
            "id": run_id,
            "resume": None if run_id is None else "allow",
            "dir": str(directory),
            # Several trainings of one process are several runs.
            "reinit": "create_new",
            "settings": {name: value for name, value in _DEFAULTS.items() if f"WANDB_{name.upper()}" not in os.environ},
        }

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._run is not None:
            self._run.log({"step": step, **metrics})

    def on_sample(self, step: int, text: str) -> None:
        if self._run is not None and self.spec.samples:
            import wandb

            page = f'<pre style="white-space: pre-wrap">{html.escape(text)}</pre>'
            self._run.log({"step": step, "sample": wandb.Html(page, inject=False)})

    def on_end(self, step: int, error: BaseException | None) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        interrupted = isinstance(error, KeyboardInterrupt)
        try:
            if error is None or interrupted:
                run.summary.update(_summary(self._directory))
        finally:
            run.finish(exit_code=0 if error is None else _INTERRUPTED if interrupted else 1)


def _is_logged_in() -> bool:
    """Return whether wandb has credentials; it is not asked for them, since a prompt would stop a batch job."""
    import wandb

    try:
        if wandb.login(prompt=False, verify=False):
            return True
    except wandb.Error as error:
        _warn(str(error))
    else:
        _warn("wandb is not logged in (`wandb login`)")
    return False


def _warn(reason: str) -> None:
    _log.warning("tracker 'wandb': %s; the run is recorded offline, and `wandb sync` uploads it later", reason)


def _summary(directory: Path) -> dict[str, float]:
    """Return the numbers of the run's summary.json, which is written before trackers are called."""
    file = directory / "summary.json"
    numbers = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {name: value for name, value in numbers.items() if value is not None}


@gptkit.hookimpl
def gptkit_components() -> list[type[TrackerSpec]]:
    return [WandbSpec]
