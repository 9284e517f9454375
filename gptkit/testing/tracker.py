"""Checks of the kind `tracker`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import MappingProxyType

from gptkit.kinds.tracker import Tracker, TrainingStart
from gptkit.testing.check import Checks, expect
from gptkit.testing.subject import Subject

__all__ = ["tracker_checks"]

tracker_checks = Checks()


_METRICS: tuple[dict[str, float], ...] = (
    {"loss": 3.5, "learning_rate": 1e-3},
    {"loss": 3.25, "learning_rate": 1e-3, "validation_loss": 3.4},
    {"loss": float("nan"), "tokens_per_second": 1e5},
)


def _train(tracker: Tracker, directory: Path, first: int = 0, error: BaseException | None = None) -> None:
    checkpoint = directory / "checkpoints"
    checkpoint.mkdir(exist_ok=True)
    tracker.on_start(TrainingStart(directory, first, 10, {"name": "check", "model": {"d_model": 32}}))
    for step, metrics in enumerate(_METRICS, start=first + 1):
        tracker.on_metrics(step, MappingProxyType(metrics))
    tracker.on_sample(first + 3, "Once upon a time there was a text.\n🙂")
    tracker.on_checkpoint(first + 3, checkpoint)
    tracker.on_end(first + 3, error)


@tracker_checks.add("tracks", "A tracker that raises is disabled, and its metrics of that training are lost.")
def tracks(subject: Subject) -> None:
    tracker = subject.spec.build()
    expect(isinstance(tracker, Tracker), f"build gave a {type(tracker).__name__}, not a gptkit.kinds.tracker.Tracker")
    with tempfile.TemporaryDirectory(prefix="gptkit-check-") as directory:
        _train(tracker, Path(directory))


@tracker_checks.add("resumes", "Trainings are interrupted and resumed; steps since the last checkpoint are reported again.")
def resumes(subject: Subject) -> None:
    with tempfile.TemporaryDirectory(prefix="gptkit-check-") as directory:
        _train(subject.spec.build(), Path(directory), error=KeyboardInterrupt())
        _train(subject.spec.build(), Path(directory), first=2)


@tracker_checks.add("stays-in-its-run", "Several trainings may run at once, so trackers must be independent.")
def stays_in_its_run(subject: Subject) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="gptkit-check-") as one,
        tempfile.TemporaryDirectory(prefix="gptkit-check-") as two,
    ):
        first, second = subject.spec.build(), subject.spec.build()
        expect(first is not second, "build gives the same tracker twice; one training's numbers would end up in another's")
        _train(first, Path(one))
        before = _listing(Path(one))
        _train(second, Path(two))
        after = _listing(Path(one))
        for file, _ in sorted(set(after.items()) ^ set(before.items())):
            expect(False, f"tracking another training changed {file!r} of this one")


def _listing(directory: Path) -> dict[str, bytes]:
    """Return the files with their contents. A link is not followed: it may lead to a log that a library shares."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_symlink() or path.is_file()]
    return {
        str(path.relative_to(directory)): str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        for path in files
    }
