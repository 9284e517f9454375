"""A spec becomes a run: folder, tokenizer, data, model, training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gptkit.checkpoint.store import CheckpointStore
from gptkit.core.errors import CheckpointError, DataError
from gptkit.core.registry import Registry, default_registry
from gptkit.core.spec import shortened
from gptkit.data import Prepared, Progress, open_prepared, prepare
from gptkit.data.files import replaced_folder
from gptkit.inference import generate
from gptkit.kinds.callback import Callback
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.kinds.tracker import Tracker, TrainingStart
from gptkit.model.gpt import GPT
from gptkit.runs.build import fit_tokenizer, new_model
from gptkit.runs.folder import RunFolder
from gptkit.runs.opening import Opened, SpecLike, open_spec
from gptkit.runs.run import Run, load_tokenizer, prompt_ids
from gptkit.runs.spec import ExperimentSpec
from gptkit.training.callback import PluginTrackers, TrackerCallback
from gptkit.training.loop import Trainer
from gptkit.training.progress import ConsoleProgress, preparing
from gptkit.training.records import LossPlot, MetricsFile, SamplesFile
from gptkit.training.resume import refused_changes
from gptkit.training.seeds import derive

__all__ = ["resume", "train"]

_LISTED = 6
"""More differences than this are only counted."""


def train(
    spec: SpecLike | None,
    folder: str | Path,
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
    """Train a model into a folder.

    Args:
        spec: a spec file, the name of a shipped one, plain data, or an `ExperimentSpec`; None when resuming, for the
            run's own.
        folder: where the run goes.
        overrides: ``"training.steps=50"`` and the like, as on the command line.
        resume: go on with the run in the folder from its last checkpoint, with the numbers that it would have had
            without the interruption; start where there is no run yet. Without it, a run that has no checkpoint (its
            start failed, say) is started anew.
        overwrite: remove the run that is in the folder.
        progress: show a bar, samples and how to resume on stderr.
        callbacks: take part beside those of the spec; an exception ends the training.
        trackers: receive metrics beside those of the spec; an exception ends the tracker only.
        registry: where components are looked up; by default what is installed.
        changes: parts of the spec to change, with Python values; ``**{"training.steps": 50}`` reaches deeper.

    Returns:
        The run. Its `finished` is false where Ctrl-C came first.

    Raises:
        SpecError: the spec is wrong.
        CheckpointError: the folder holds a run already, another process trains into it, or it cannot be resumed.
        TrainingError: the loss is no longer finite.
    """
    there = RunFolder(folder)
    there.require_no_file()
    if spec is None:
        there.require_run()
        spec = there.spec
        base: Path | None = Path(there.read_provenance().get("base", "."))
        there.read_spec(registry)
    else:
        base = None
    opened = open_spec(spec, overrides, changes, registry=registry)
    if base is not None:
        opened = Opened(opened.spec, base)
    with there.lock():
        if overwrite and not resume and there.holds_run:
            there.clear()
        if there.unstarted and not (resume and there.read_provenance()["spec_sha256"] == opened.spec.sha256):
            there.clear_unstarted()
        if there.holds_run and resume:
            _require_same(there.read_spec(registry), opened.spec, there)
        else:
            there.require_free()
        return _train(opened, there, progress=progress, callbacks=callbacks, trackers=trackers, registry=registry)


def resume(folder: str | Path, overrides: Sequence[str] = (), **arguments: Any) -> Run:
    """Go on with a run; ``**{"training.steps": 2000}`` trains it for longer. Arguments as for `train`.

    Raises:
        CheckpointError: there is no run, or it cannot be resumed.
    """
    return train(None, folder, overrides, resume=True, **arguments)


def _train(
    opened: Opened,
    there: RunFolder,
    *,
    progress: bool,
    callbacks: Iterable[Callback],
    trackers: Iterable[Tracker],
    registry: Registry | None,
) -> Run:
    spec = opened.spec
    store = CheckpointStore(there.checkpoints, keep=spec.training.keep_checkpoints)
    store.clean()
    checkpoint = store.latest()
    before = there.read_provenance() if checkpoint is not None else {}
    if checkpoint is None:
        there.write_spec(spec)
    notes: dict[str, Any] = {"base": str(opened.base), **{key: before[key] for key in ("data", "imported") if key in before}}
    there.write_provenance(spec, registry, **notes)
    screen = ConsoleProgress() if progress else None
    with preparing(screen, "making the tokenizer"):
        tokenizer = _tokenizer(opened, there)
    # Noted as soon as it is there: what is not noted is not ours, and a later start leaves it alone.
    there.write_provenance(spec, registry, **notes, made=["tokenizer"])
    with preparing(screen, "turning the corpus into tokens") as show:
        prepared = _data(opened, there, tokenizer, before.get("data"), lambda at: show(at.done, at.total))
    there.write_spec(spec)
    there.write_provenance(spec, registry, **{**notes, "data": prepared.fingerprint, "made": ["tokenizer", "data"]})
    model = new_model(spec, tokenizer.vocab_size, to_train=True)
    watching: list[Callback] = [
        MetricsFile(there.metrics),
        SamplesFile(there.samples),
        LossPlot(there.metrics, there.plot, spec.name),
        *callbacks,
        *(TrackerCallback(tracker.build, tracker.name) for tracker in spec.training.trackers),
        *(TrackerCallback.of(tracker) for tracker in trackers),
        PluginTrackers(partial(_plugin_trackers, registry or default_registry())),
        *([screen] if screen is not None else []),
    ]
    length = spec.model.context_length
    trainer = Trainer(
        model,
        spec.training,
        prepared.train_windows(spec.data, length).batch,
        lambda size, batches: prepared.validation_batches(spec.data, length, size, batches),
        checkpoints=store,
        callbacks=watching,
        write=_writer(spec, model, tokenizer),
        describe=spec.plain(),
    )
    if checkpoint is not None:
        trainer.resume(checkpoint)
    trainer.run()
    return Run(there.path, spec, model, tokenizer, trainer.step, there.read_provenance())


def _tokenizer(opened: Opened, there: RunFolder) -> Tokenizer:
    if not there.tokenizer.is_dir():
        fitted = fit_tokenizer(opened)
        with replaced_folder(there.tokenizer) as new:
            fitted.save(new)
    # Loaded even where it was just made: so a training and what is made of its folder later use the same.
    return load_tokenizer(opened.spec, there)


def _data(
    opened: Opened,
    there: RunFolder,
    tokenizer: Tokenizer,
    fingerprint: str | None,
    progress: Callable[[Progress], None],
) -> Prepared:
    """The corpus as tokens; with a fingerprint, of a training that is under way, it must be the same one."""
    if fingerprint is not None:
        try:
            found = open_prepared(there.data)
        except DataError:
            pass
        else:
            if found.fingerprint == fingerprint:
                return found
    prepared = prepare(opened.spec.data, tokenizer, there.data, opened.base, progress=progress)
    if fingerprint not in (None, prepared.fingerprint):
        raise CheckpointError(
            f"{there.data}: the corpus is not the one that the run was trained on so far",
            hint="Bring the corpus back as it was, or train anew into another folder.",
        )
    return prepared


def _writer(spec: ExperimentSpec, model: GPT, tokenizer: Tokenizer) -> Callable[[int], str] | None:
    training = spec.training
    if training.sample_tokens == 0:
        return None

    def write(step: int) -> str:
        (result,) = generate(
            model,
            tokenizer,
            [prompt_ids(tokenizer, training.sample_prompt)],
            sampler=spec.sampler,
            max_new_tokens=training.sample_tokens,
            stop_ids=(),
            # The same for every step, so that two samples differ in what was learned and not in luck.
            seed=derive(training.seed, "sample") % 2**32,
        )
        return training.sample_prompt + result.text

    return write


def _plugin_trackers(registry: Registry, start: TrainingStart) -> Iterable[tuple[str, Any]]:
    return ((plugin.provenance, returned) for plugin, returned in registry.call("gptkit_trackers", start=start))


def _require_same(run: ExperimentSpec, asked: ExperimentSpec, there: RunFolder) -> None:
    refused = refused_changes(run, asked)
    steps = CheckpointStore(there.checkpoints).steps()
    if "imported" in there.read_provenance() and steps[-1:] == [0]:
        # Weights that were imported have no training behind them, which another one could contradict.
        refused = [change for change in refused if change.path.startswith(("model.", "tokenizer."))]
    if refused:
        listed = [
            f"  {change.path}: {_brief(change.old)} in the run, {_brief(change.new)} requested; {change.reason}"
            for change in refused[:_LISTED]
        ]
        more = [f"  and {len(refused) - _LISTED} more"] if len(refused) > _LISTED else []
        raise CheckpointError(
            "\n".join([f"{there.path} was started with another spec, and a resumed run cannot change:", *listed, *more]),
            hint="Resume it without these changes, or start a new run: in another directory, or in its place with "
            "--overwrite (overwrite=True).",
        )
    if steps and asked.training.steps < steps[-1]:
        raise CheckpointError(
            f"{there.path} has reached step {steps[-1]}, and training.steps is {asked.training.steps}",
            hint="Ask for more steps, or load the run as it is.",
        )


def _brief(value: Any) -> str:
    return shortened(repr(value), 30)
