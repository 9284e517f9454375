"""Training of a spec's model in a run directory: tokenizer, data, model, and training."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from gptkit.checkpoint.store import CheckpointStore
from gptkit.core.activity import Report, working
from gptkit.core.atomic import atomic_directory, remove_leftovers
from gptkit.core.errors import CheckpointError, DataError
from gptkit.core.registry import Registry
from gptkit.data import Prepared, Progress, open_prepared, prepare
from gptkit.data.fingerprint import tokenizer_fingerprint
from gptkit.data.prepared import refer
from gptkit.kinds.callback import Callback
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.kinds.tracker import Tracker
from gptkit.model.gpt import GPT
from gptkit.runs.cautions import cautions
from gptkit.runs.corpus import find_prepared, fit_tokenizer
from gptkit.runs.directory import WRITTEN_IN_TRAINING, RunDirectory
from gptkit.runs.fit import fit, initial_model
from gptkit.runs.moved import base_notes, naming_the_spec
from gptkit.runs.opening import Opened, SpecLike, open_spec
from gptkit.runs.placing import Placement
from gptkit.runs.resuming import notes_of_changes, recorded_spec, require_same
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
    prepared: str | Path | None = None,
    registry: Registry | None = None,
    **changes: Any,
) -> Run:
    """Train a model in a run directory.

    Args:
        spec: a spec file, the name of a shipped spec, plain data, or an `ExperimentSpec`; None to resume with the run's own
            spec.
        directory: the run directory.
        overrides: ``"training.steps=50"`` and the like, as on the command line.
        resume: continue the run in the directory from its last checkpoint, with the same results as without the
            interruption; without a run, start a new one. If False, a run without a checkpoint (after a failed training, for
            example) is replaced.
        overwrite: replace the run in the directory. It is kept until the new run has its first checkpoint, and restored if
            the new run does not reach one. Only files that gptkit wrote are replaced.
        progress: show a progress bar, samples, and the command to resume on stderr.
        callbacks: callbacks in addition to those of the spec; an exception ends the training.
        trackers: trackers in addition to those of the spec; an exception ends the tracker only.
        prepared: a directory that is searched for prepared tokens of the spec, after `prepared` in its base directory.
        registry: where components are looked up; by default what is installed.
        changes: parts of the spec to change, with Python values; ``**{"training.steps": 50}`` for nested ones.

    Returns:
        The run. Its `finished` is false after Ctrl-C.

    Raises:
        SpecError: the spec is invalid.
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
    if prepared is not None:
        opened = replace(opened, prepared=Path(prepared).absolute())
    options: dict[str, Any] = {"trackers": trackers, "registry": registry}
    device = pick_device(opened.spec.training.device)
    with contextlib.ExitStack() as stack:
        processes = stack.enter_context(joined(opened.spec.training.parallel, device))
        if not processes.is_main:
            return _follow(run_directory, processes, callbacks=callbacks, **options)
        refuse_oversized_batch(opened.spec, processes.parts)
        run_directory.recover()
        _require_allowed(run_directory, opened, resume=resume, overwrite=overwrite)
        if resume and run_directory.unstarted:
            _log.warning("%s has no checkpoint, so the training starts from step 0", run_directory.path)
        stack.enter_context(run_directory.lock())
        remove_leftovers(run_directory.path)
        placement = Placement(run_directory)
        placement.recover()
        continues = _require_allowed(run_directory, opened, resume=resume, overwrite=overwrite)
        if continues:
            recorded = recorded_spec(run_directory, registry)
            require_same(recorded, opened.spec, run_directory)
            for note in notes_of_changes(
                recorded, opened.spec, run_directory, own=spec == run_directory.spec, registry=registry
            ):
                _log.warning("%s", note)
        for caution in cautions(opened.spec, None if continues else opened.base):
            _log.warning("%s", caution)
        try:
            new = None if continues else placement
            return _train(opened, run_directory, new, processes, progress, callbacks, **options)
        except BaseException:
            restores = placement.replaces and not run_directory.has_checkpoint
            placement.recover()
            # What a failed start left is restored as well, and is not called a run: it has no checkpoint.
            if restores and run_directory.has_checkpoint:
                _log.warning(
                    "the new run did not reach a checkpoint; the previous run is restored in %s", run_directory.path
                )
            raise


def _require_allowed(run_directory: RunDirectory, opened: Opened, *, resume: bool, overwrite: bool) -> bool:
    """Raise an error if the training would replace files; return whether it continues the existing run."""
    if run_directory.unstarted:
        return resume and run_directory.read_provenance().get("spec_sha256") == opened.spec.sha256
    if run_directory.holds_run and (resume or overwrite):
        return resume
    run_directory.require_free(resumable=True)
    return False


def resume(directory: str | Path, overrides: Sequence[str] = (), **arguments: Any) -> Run:
    """Continue a run; ``**{"training.steps": 2000}`` trains it for more steps. Arguments as for `train`.

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
    """Train in a process other than the main one, which prepares and records the training."""
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
    """Prepare a new run, check what can be checked before the training, and move the run to its directory."""
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
    # Entries that an export requires of the external model of the weights.
    origin = {} if init is None else source_of(init, opened.base, registry).notes()
    notes = {**origin, **base_notes(opened.base, run_directory.path), "data": prepared.fingerprint, "files": files}
    new.write_provenance(spec, registry, **notes)
    placement.place(files)
    return tokenizer, model


def _continue(
    opened: Opened, run_directory: RunDirectory, screen: ConsoleProgress | None, registry: Registry | None
) -> tuple[Tokenizer, Prepared]:
    """Return the tokenizer and the tokens of a run that is continued; update its spec and provenance."""
    spec = opened.spec
    later = _written_in_training(spec)
    run_directory.require_unused(later)
    CheckpointStore(run_directory.checkpoints).clean()
    previous = run_directory.read_provenance()
    own = [
        path.relative_to(run_directory.path).as_posix()
        for path in run_directory.own_files()
        if run_directory.checkpoints not in path.parents
    ]
    tokenizer = _tokenizer(opened, run_directory, screen, registry)
    trained_on = previous.get("data") if run_directory.has_checkpoint else None
    with naming_the_spec(run_directory.path, run_directory.base_is_missing and str(opened.base) == previous.get("base")):
        prepared = _data(opened, run_directory, tokenizer, trained_on, screen)
    run_directory.write_spec(spec)
    notes = {key: previous[key] for key in ("imported",) if key in previous} | base_notes(opened.base, run_directory.path)
    files = list(dict.fromkeys([*own, *later]))
    run_directory.write_provenance(spec, registry, **notes, data=prepared.fingerprint, files=files)
    return tokenizer, prepared


def _written_in_training(spec: ExperimentSpec) -> list[str]:
    """Return the files that a training writes to its run directory, except the checkpoints."""
    tables = [name for tracker in spec.training.trackers for name in tracker.files()]
    return list(dict.fromkeys([*WRITTEN_IN_TRAINING, *tables]))


def _tokenizer(
    opened: Opened, run_directory: RunDirectory, screen: ConsoleProgress | None, registry: Registry | None
) -> Tokenizer:
    with _working("creating the tokenizer", screen):
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
    """Return the corpus as tokens; with the fingerprint of an earlier training, it must be the same corpus."""
    if fingerprint is not None:
        try:
            existing = open_prepared(run_directory.data)
        except DataError:
            pass
        else:
            if existing.fingerprint == fingerprint:
                return existing
    shared = find_prepared(opened)
    if shared is not None and shared.tokenizer != tokenizer_fingerprint(tokenizer):
        if opened.spec.data.token_directory(opened.base) is None:  # otherwise `prepare` reports it as an error
            _log.warning("%s was prepared with another tokenizer, and is not used", shared.directory)
    elif shared is not None and fingerprint in (None, shared.fingerprint):
        # Prepared by `gptkit data prepare`: used where they are.
        refer(run_directory.data, shared)
        return shared
    with _working("tokenizing the corpus", screen) as show:

        def report(at: Progress) -> None:
            if at.total:
                show(at.done, at.total)

        prepared = prepare(opened.spec.data, tokenizer, run_directory.data, opened.base, progress=report, of_run=True)
    if fingerprint not in (None, prepared.fingerprint):
        raise CheckpointError(
            f"{run_directory.data}: the corpus differs from the one that the run was trained on",
            hint="Restore the corpus, or start a new run in another directory.",
        )
    return prepared
