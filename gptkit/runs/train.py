"""Train the model of a spec into a run directory: tokenizer, data, model, training."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from gptkit.checkpoint.store import CheckpointStore
from gptkit.core.activity import Report, working
from gptkit.core.atomic import atomic_directory
from gptkit.core.errors import CheckpointError, DataError
from gptkit.core.registry import Registry
from gptkit.data import Prepared, open_prepared, prepare
from gptkit.kinds.callback import Callback
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.kinds.tracker import Tracker
from gptkit.model.gpt import GPT
from gptkit.runs.build import fit_tokenizer
from gptkit.runs.cautions import cautions
from gptkit.runs.directory import WRITTEN_IN_TRAINING, RunDirectory
from gptkit.runs.fit import fit, initial_model
from gptkit.runs.opening import Opened, SpecLike, open_spec
from gptkit.runs.placing import Placement
from gptkit.runs.resuming import recorded_spec, require_same, taken_over
from gptkit.runs.run import Run
from gptkit.runs.sizes import refuse_oversized_batch
from gptkit.runs.spec import ExperimentSpec
from gptkit.runs.start import source_of, tokenizer_of
from gptkit.runs.tokenizers import load_tokenizer
from gptkit.training.parallel.processes import Processes, joined
from gptkit.training.precision import pick_device
from gptkit.training.progress import ConsoleProgress

__all__ = ["resume", "train"]

_log = logging.getLogger("gptkit")


def train(
    spec: SpecLike | None,
    directory: str | Path,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    callbacks: Iterable[Callback] = (),
    trackers: Iterable[Tracker] = (),
    registry: Registry | None = None,
    **changes: Any,
) -> Run:
    """Train a model into a run directory.

    Args:
        spec: a spec file, the name of a shipped one, plain data, or an `ExperimentSpec`; None when resuming, for the
            run's own.
        directory: the run directory.
        overrides: ``"training.steps=50"`` and the like, as on the command line.
        resume: continue the run in the directory from its last checkpoint, with the numbers that it would have had
            without the interruption; start a new run where there is none. Without it, a run that has no checkpoint (its
            training failed, say) is replaced.
        overwrite: replace the run in the directory. It is kept until the new run has its first checkpoint, and restored
            where that is not reached. Only files that gptkit wrote are replaced.
        progress: show a bar, samples and how to resume on stderr.
        callbacks: take part beside those of the spec; an exception ends the training.
        trackers: receive metrics beside those of the spec; an exception ends the tracker only.
        registry: where components are looked up; by default what is installed.
        changes: parts of the spec to change, with Python values; ``**{"training.steps": 50}`` reaches deeper.

    Returns:
        The run. Its `finished` is false where Ctrl-C came first.

    Raises:
        SpecError: the spec is wrong.
        CheckpointError: the directory holds a run already or other files, another process writes into it, or the run
            cannot be resumed.
        TrainingError: the loss is not finite.
    """
    run_directory = RunDirectory(directory)
    run_directory.require_no_file()
    if spec is None:
        run_directory.require_run()
        spec = run_directory.spec
        base: Path | None = Path(run_directory.read_provenance().get("base", "."))
        run_directory.read_spec(registry)
    else:
        base = None
    opened = open_spec(spec, overrides, changes, registry=registry)
    if base is not None:
        opened = Opened(opened.spec, base)
    options: dict[str, Any] = {"trackers": trackers, "registry": registry}
    device = pick_device(opened.spec.training.device)
    with contextlib.ExitStack() as stack:
        processes = stack.enter_context(joined(opened.spec.training.parallel, device))
        if not processes.is_main:
            return _follow(run_directory, processes, callbacks=callbacks, **options)
        refuse_oversized_batch(opened.spec, processes.count)
        run_directory.recover()
        _require_allowed(run_directory, opened, resume=resume, overwrite=overwrite)
        stack.enter_context(run_directory.lock())
        placement = Placement(run_directory)
        placement.recover()
        continues = _require_allowed(run_directory, opened, resume=resume, overwrite=overwrite)
        if continues:
            recorded = recorded_spec(run_directory, registry)
            require_same(recorded, opened.spec, run_directory)
            edits = taken_over(recorded, run_directory, registry) if spec == run_directory.spec else []
            if edits:
                _log.warning("%s was edited since the training; taken over: %s", run_directory.spec, "; ".join(edits))
        for caution in cautions(opened.spec, None if continues else opened.base):
            _log.warning("%s", caution)
        try:
            return _train(opened, run_directory, None if continues else placement, processes, progress, callbacks, **options)
        except BaseException:
            restores = placement.replaces and not run_directory.has_checkpoint
            placement.recover()
            if restores:
                _log.warning("the new run did not reach a checkpoint; %s holds the previous run again", run_directory.path)
            raise


def _require_allowed(run_directory: RunDirectory, opened: Opened, *, resume: bool, overwrite: bool) -> bool:
    """Raise where the training would write over something; return whether it continues the run that is there."""
    if run_directory.unstarted:
        return resume and run_directory.read_provenance().get("spec_sha256") == opened.spec.sha256
    if run_directory.holds_run and (resume or overwrite):
        return resume
    run_directory.require_free()
    return False


def resume(directory: str | Path, overrides: Sequence[str] = (), **arguments: Any) -> Run:
    """Continue a run; ``**{"training.steps": 2000}`` trains it for longer. Arguments as for `train`.

    Raises:
        CheckpointError: the run was not found, or cannot be resumed.
    """
    return train(None, directory, overrides, resume=True, **arguments)


def _train(
    opened: Opened,
    run_directory: RunDirectory,
    placement: Placement | None,
    processes: Processes,
    progress: bool,
    callbacks: Iterable[Callback],
    trackers: Iterable[Tracker],
    registry: Registry | None,
) -> Run:
    """Train in a run directory; without a placement, its run is continued."""
    screen = ConsoleProgress() if progress else None
    if placement is None:
        tokenizer, prepared = _continue(opened, run_directory, screen, registry)
        with _working("building the model", screen):
            model = initial_model(opened.spec, tokenizer, processes)
    else:
        tokenizer, model = _start(opened, run_directory, placement, processes, screen, registry)
        prepared = open_prepared(run_directory.data)
    processes.wait()
    run = fit(
        run_directory,
        opened.spec,
        tokenizer,
        prepared,
        model,
        processes,
        screen=screen,
        callbacks=[*([_Commit(placement)] if placement is not None else []), *callbacks],
        trackers=trackers,
        registry=registry,
    )
    if placement is not None and placement.replaces:
        # Interrupted before the first step: the previous run is restored.
        raise KeyboardInterrupt
    return run


def _follow(
    run_directory: RunDirectory,
    processes: Processes,
    *,
    callbacks: Iterable[Callback],
    trackers: Iterable[Tracker],
    registry: Registry | None,
) -> Run:
    """Take part in a training that the main process prepares and records."""
    processes.wait()
    spec = run_directory.read_spec(registry)
    tokenizer = load_tokenizer(spec, run_directory)
    model = initial_model(spec, tokenizer, processes)
    return fit(
        run_directory,
        spec,
        tokenizer,
        open_prepared(run_directory.data),
        model,
        processes,
        callbacks=callbacks,
        registry=registry,
    )


def _working(what: str, screen: ConsoleProgress | None) -> AbstractContextManager[Report]:
    return working(what, quiet=screen is None, console=None if screen is None else screen.console)


class _Commit(Callback):
    """Callback that discards the previous run when the new one has its first checkpoint."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement

    def on_checkpoint(self, step: int, directory: Path) -> None:
        self._placement.commit()


def _start(
    opened: Opened,
    run_directory: RunDirectory,
    placement: Placement,
    processes: Processes,
    screen: ConsoleProgress | None,
    registry: Registry | None,
) -> tuple[Tokenizer, GPT]:
    """Prepare a new run and put it in place, once everything that can be checked before the training has been."""
    spec = opened.spec
    later = _written_in_training(spec)
    run_directory.require_unused(later)
    new = RunDirectory(placement.begin())
    tokenizer = _tokenizer(opened, new, screen, registry)
    prepared = _data(opened, new, tokenizer, None, screen)
    prepared.train_windows(spec.data, spec.window)
    with _working("building the model", screen):
        model = initial_model(spec, tokenizer, processes)
    new.write_spec(spec)
    files = [path.relative_to(new.path).as_posix() for path in sorted(new.path.rglob("*")) if path.is_file()]
    files = ["provenance.json", *files, *later]
    init = spec.training.init_from
    # What an export needs of the external model that the weights came from.
    origin = {} if init is None else source_of(init, opened.base, registry).notes()
    notes = {**origin, "base": str(opened.base), "data": prepared.fingerprint, "files": files}
    new.write_provenance(spec, registry, **notes)
    placement.place(files)
    return tokenizer, model


def _continue(
    opened: Opened, run_directory: RunDirectory, screen: ConsoleProgress | None, registry: Registry | None
) -> tuple[Tokenizer, Prepared]:
    """The tokenizer and the tokens of a run that is continued; updates its spec and provenance."""
    spec = opened.spec
    later = _written_in_training(spec)
    run_directory.require_unused(later)
    CheckpointStore(run_directory.checkpoints).clean()
    before = run_directory.read_provenance()
    own = [
        path.relative_to(run_directory.path).as_posix()
        for path in run_directory.own_files()
        if run_directory.checkpoints not in path.parents
    ]
    tokenizer = _tokenizer(opened, run_directory, screen, registry)
    trained_on = before.get("data") if run_directory.has_checkpoint else None
    prepared = _data(opened, run_directory, tokenizer, trained_on, screen)
    run_directory.write_spec(spec)
    notes: dict[str, Any] = {key: before[key] for key in ("imported",) if key in before}
    files = list(dict.fromkeys([*own, *later]))
    run_directory.write_provenance(spec, registry, base=str(opened.base), **notes, data=prepared.fingerprint, files=files)
    return tokenizer, prepared


def _written_in_training(spec: ExperimentSpec) -> list[str]:
    """The files that a training writes in its run directory, besides the checkpoints."""
    tables = [name for tracker in spec.training.trackers for name in tracker.files()]
    return list(dict.fromkeys([*WRITTEN_IN_TRAINING, *tables]))


def _tokenizer(
    opened: Opened, run_directory: RunDirectory, screen: ConsoleProgress | None, registry: Registry | None
) -> Tokenizer:
    with _working("making the tokenizer", screen):
        if not run_directory.tokenizer.is_dir():
            init = opened.spec.training.init_from
            source = None if init is None else source_of(init, opened.base, registry)
            inherited = None if init is None or source is None else tokenizer_of(source, init, opened)
            fitted = fit_tokenizer(opened) if inherited is None else inherited
            with atomic_directory(run_directory.tokenizer) as new:
                fitted.save(new)
        # Loaded even if it was just created, so that training and later uses of the directory share the same tokenizer.
        return load_tokenizer(opened.spec, run_directory)


def _data(
    opened: Opened,
    run_directory: RunDirectory,
    tokenizer: Tokenizer,
    fingerprint: str | None,
    screen: ConsoleProgress | None,
) -> Prepared:
    """The corpus as tokens; with a fingerprint, of a training that is under way, it must be the same one."""
    if fingerprint is not None:
        try:
            found = open_prepared(run_directory.data)
        except DataError:
            pass
        else:
            if found.fingerprint == fingerprint:
                return found
    with _working("tokenizing the corpus", screen) as show:
        prepared = prepare(
            opened.spec.data, tokenizer, run_directory.data, opened.base, progress=lambda at: show(at.done, at.total)
        )
    if fingerprint not in (None, prepared.fingerprint):
        raise CheckpointError(
            f"{run_directory.data}: the corpus is not the one that the run was trained on so far",
            hint="Restore the corpus, or start a new run in another directory.",
        )
    return prepared
