"""Tracker `mlflow`."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

import gptkit
from gptkit.core.atomic import write_text
from gptkit.core.outputs import EXPERIMENT, TRIALS
from gptkit.kinds.tracker import Tracker, TrackerSpec, TrainingStart
from gptkit_mlflow.worker import Worker

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["MlflowSpec", "MlflowTracker"]

_ID = "mlflow/gptkit-run-id.txt"
_STORE = "mlflow/mlflow.db"
_SQLITE = "sqlite:///"
_EXPERIMENT = "gptkit"
_END_TIMEOUT = 60.0
_FAILED_TIMEOUT = 5.0
"""Seconds to wait at the end of a training, and after this tracker failed."""
_PARAMS_PER_CALL, _KEY_LENGTH, _VALUE_LENGTH = 100, 250, 6000
"""MLflow's limits for the parameters of a call, and for the characters of a parameter's name and value."""
_LOCKS: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
"""By store: a directory would hold an experiment twice that two trainings of this process create at once."""


class MlflowSpec(TrackerSpec):
    """MLflow run with metrics, samples, the spec and the summary.

    Notes:
        What is not set here is taken from MLflow's environment variables. Without a tracking URI the run is recorded in an
        SQLite store in the run directory. A resumed training continues its run.
    """

    name: Literal["mlflow"] = "mlflow"
    tracking_uri: str | None = Field(
        None,
        min_length=1,
        description=f"Server or store; MLFLOW_TRACKING_URI, or `{_STORE}` in the run directory, by default.",
    )
    experiment: str | None = Field(
        None,
        min_length=1,
        description=f"Experiment; MLFLOW_EXPERIMENT_NAME or `{_EXPERIMENT}` by default. Trials have the name of their "
        "experiment's directory.",
    )
    run_name: str | None = Field(
        None, min_length=1, description="Name of the run; the name of the run directory by default."
    )
    tags: dict[str, str] = Field({}, description="Tags of the run.")
    samples: bool = Field(True, description="Record the samples generated during training.")

    def files(self) -> tuple[str, ...]:
        return (_ID,)

    def build(self) -> Tracker:
        return MlflowTracker(self)


class MlflowTracker(Tracker):
    """Runtime part of `MlflowSpec`. MLflow is imported and called in a thread, whose errors the next call raises."""

    def __init__(self, spec: MlflowSpec) -> None:
        self.spec = spec
        self._worker: Worker | None = None
        self._directory = Path()
        # Set and used in the thread.
        self._client: MlflowClient
        self._run_id = ""

    def on_start(self, start: TrainingStart) -> None:
        self._directory = start.directory.absolute()
        self._worker = Worker()
        self._worker.submit(lambda: self._start(start))

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._worker is not None:
            now = int(time.time() * 1000)
            self._worker.submit(lambda: self._log(step, metrics, now))

    def on_sample(self, step: int, text: str) -> None:
        if self._worker is not None and self.spec.samples:
            file = f"samples/step-{step:08}.txt"
            self._worker.submit(lambda: self._client.log_text(self._run_id, text, file))

    def on_end(self, step: int, error: BaseException | None) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        timeout = _END_TIMEOUT
        if worker.failed and self._run_id:
            # The run would seem to continue for ever. A store that failed may not answer this either.
            worker, timeout = Worker(), _FAILED_TIMEOUT
        interrupted = isinstance(error, KeyboardInterrupt)
        status = "FINISHED" if error is None else "KILLED" if interrupted else "FAILED"
        if error is None or interrupted:
            now = int(time.time() * 1000)
            worker.submit(lambda: self._log(step, _summary(self._directory), now))
        worker.submit(lambda: self._client.set_terminated(self._run_id, status))
        worker.close(timeout)

    def _start(self, start: TrainingStart) -> None:
        import mlflow
        from mlflow.entities import Param

        uri = self.spec.tracking_uri
        if uri is None and not mlflow.is_tracking_uri_set():  # type: ignore[no-untyped-call]
            uri = f"{_SQLITE}{(self._directory / _STORE).as_posix()}"
            (self._directory / _STORE).parent.mkdir(exist_ok=True)
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        # Without completed steps it is a new training, also in the directory of an earlier one.
        logged = self._continued() if start.step else None
        if logged is None:
            name = self.spec.run_name or self._directory.name
            uri = uri or mlflow.get_tracking_uri()
            with _LOCKS[uri]:
                experiment = self._experiment(uri)
            run = self._client.create_run(experiment, run_name=name)
            self._run_id = run.info.run_id
            (self._directory / _ID).parent.mkdir(exist_ok=True)
            write_text(self._directory / _ID, f"{self._run_id}\n")
        for key, value in self.spec.tags.items():
            self._client.set_tag(self._run_id, key, value)
        # MLflow refuses to change a parameter; spec.json is the present spec.
        params = [Param(key, value) for key, value in _flat(start.spec) if key not in (logged or {})]
        for first in range(0, len(params), _PARAMS_PER_CALL):
            self._client.log_batch(self._run_id, params=params[first : first + _PARAMS_PER_CALL])
        self._client.log_dict(self._run_id, dict(start.spec), "spec.json")

    def _continued(self) -> dict[str, str] | None:
        """Continue the run of the run directory and return its parameters; None if the store does not have it."""
        from mlflow import MlflowException

        file = self._directory / _ID
        if not file.exists():
            return None
        self._run_id = file.read_text(encoding="utf-8").strip()
        try:
            params: dict[str, str] = self._client.get_run(self._run_id).data.params
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        self._client.update_run(self._run_id, status="RUNNING")
        return params

    def _experiment(self, uri: str) -> str:
        """Return the id of the experiment, which is created if necessary."""
        from mlflow import MlflowException

        directory = self._directory.parent.parent
        is_trial = self._directory.parent.name == TRIALS and (directory / EXPERIMENT).is_file()
        name = self.spec.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME")
        if name is None and (identifier := os.environ.get("MLFLOW_EXPERIMENT_ID")):
            return identifier
        name = name or (directory.name if is_trial else _EXPERIMENT)
        if (existing := self._client.get_experiment_by_name(name)) is None:
            # A store in a file would have its artifacts in the current directory.
            store = Path(uri.removeprefix(_SQLITE)).absolute() if uri.startswith(_SQLITE) else None
            location = None if store is None else (store.parent / "mlartifacts").as_uri()
            try:
                return str(self._client.create_experiment(name, artifact_location=location))
            except MlflowException:
                # Another training may have created it in the meantime.
                if (existing := self._client.get_experiment_by_name(name)) is None:
                    raise
        return str(existing.experiment_id)

    def _log(self, step: int, metrics: Mapping[str, float], now: int) -> None:
        from mlflow.entities import Metric

        values = [Metric(_key(name), float(value), now, step) for name, value in metrics.items()]
        self._client.log_batch(self._run_id, metrics=values)


def _key(name: str) -> str:
    """Return a name with characters that MLflow allows.

    A store in a directory, which servers may have too, cannot hold ``validation_loss`` and ``validation_loss/web``.
    """
    return re.sub(r"[^\w\-. :]", "_", name.replace("/", "."))[:_KEY_LENGTH]


def _flat(spec: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of a spec by their path: ``model.d_model``."""
    for name, value in spec.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield _key(f"{prefix}{name}"), text[:_VALUE_LENGTH]


def _summary(directory: Path) -> dict[str, float]:
    """Return the numbers of the run's summary.json, which is written before trackers are called."""
    file = directory / "summary.json"
    numbers = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {f"summary.{name}": value for name, value in numbers.items() if value is not None}


@gptkit.hookimpl
def gptkit_components() -> list[type[TrackerSpec]]:
    return [MlflowSpec]
