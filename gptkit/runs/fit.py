"""Training of a run whose tokenizer and data are prepared: model, trainer, and records."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gptkit.checkpoint.store import CheckpointStore, load_weights
from gptkit.core.errors import TrainingError
from gptkit.core.registry import Registry, default_registry
from gptkit.data import Batch, Prepared, Windows
from gptkit.data.mixing import MixedWindows, Mixture
from gptkit.data.packing import PackedWindows
from gptkit.data.prepared import ordered_windows
from gptkit.data.text_bytes import text_windows
from gptkit.inference import generate
from gptkit.kinds.callback import Callback
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.kinds.tracker import Tracker, TrainingStart
from gptkit.model.gpt import GPT
from gptkit.model.plan import flops_per_token
from gptkit.nn.freezing import freeze
from gptkit.nn.head import before_training
from gptkit.runs.build import new_model
from gptkit.runs.cautions import validation_caution
from gptkit.runs.directory import RunDirectory
from gptkit.runs.prompts import prompt_ids
from gptkit.runs.run import Run
from gptkit.runs.spec import ExperimentSpec
from gptkit.runs.start import source_of, start_from
from gptkit.training.callback import PluginTrackers, TrackerCallback
from gptkit.training.config import TrainingSpec
from gptkit.training.loop import TextBytes, Trainer, TrainingBatches
from gptkit.training.page import TrainingPage
from gptkit.training.parallel.processes import Processes
from gptkit.training.precision import pick_device, pick_precision
from gptkit.training.progress import ConsoleProgress
from gptkit.training.rate import known_product_rate
from gptkit.training.records import LossPlot, MetricsFile, SamplesFile
from gptkit.training.seeds import derive
from gptkit.training.summary import SummaryFile

__all__ = ["fit", "initial_model", "require_divisible"]

_log = logging.getLogger("gptkit")


def fit(
    directory: RunDirectory,
    spec: ExperimentSpec,
    tokenizer: Tokenizer,
    prepared: Prepared,
    model: GPT,
    processes: Processes,
    *,
    screen: ConsoleProgress | None = None,
    callbacks: Iterable[Callback] = (),
    trackers: Iterable[Tracker] = (),
    registry: Registry | None = None,
) -> Run:
    """Train from the newest checkpoint of a run directory, or from the start without a checkpoint.

    Args:
        directory: the run directory.
        spec: the run's spec.
        tokenizer: the run's tokenizer.
        prepared: the corpus as tokens.
        model: the model from `initial_model`.
        processes: the processes of the training; only the main one records.
        screen: the progress display.
        callbacks: callbacks in every process, in addition to those of the spec.
        trackers: trackers in the main process, in addition to those of the spec.
        registry: where plugins' trackers are looked up; by default what is installed.
    """
    store = CheckpointStore(directory.checkpoints, keep=spec.training.keep_checkpoints)
    checkpoint = store.latest()
    caution = validation_caution(spec, prepared.validation_counts)
    if caution is not None and checkpoint is None and processes.is_main:
        _log.warning("%s", caution)
    # Before the model is wrapped or sharded, which depends on what is trained.
    freeze(model, spec.training.freeze)
    forward = _distributed(model, spec, processes, empty=checkpoint is not None)
    summary = SummaryFile(
        directory.metrics,
        directory.summary,
        flops_per_token=partial(_training_flops, spec, tokenizer.vocab_size),
        product_rate=partial(_product_rate, spec),
    )
    if screen is not None:
        screen.summary = summary
    recording: list[Callback] = [
        MetricsFile(directory.metrics),
        SamplesFile(directory.samples),
        LossPlot(directory.metrics, directory.plot, spec.name),
        TrainingPage(directory.metrics, directory.page, spec.name),
        summary,
        *(TrackerCallback(tracker.build, tracker.name) for tracker in spec.training.trackers),
        *(TrackerCallback.of(tracker) for tracker in trackers),
        PluginTrackers(partial(_plugin_trackers, registry or default_registry())),
        *([screen] if screen is not None else []),
    ]
    length = spec.window
    if checkpoint is None and spec.training.init_from is not None:
        init = spec.training.init_from
        base = Path(directory.read_provenance().get("base", "."))
        start_from(model, source_of(init, base, registry), strict=init.strict)
    trainer = Trainer(
        model,
        spec.training,
        _training_batches(prepared.train_windows(spec.data, length)),
        lambda size, batches: prepared.validation_batches(spec.data, length, size, batches),
        checkpoints=store,
        callbacks=[*callbacks, *(recording if processes.is_main else [])],
        parts={
            name: partial(_batches, ordered_windows(part, spec.data, length))
            for name, part in prepared.validation_parts(spec.data).items()
        },
        text_bytes=_text_bytes(prepared, spec, tokenizer),
        write=_writer(spec, model, tokenizer),
        describe=spec.plain(),
        processes=processes,
        forward=forward,
    )
    if checkpoint is not None:
        trainer.resume(checkpoint)
    trainer.run()
    if processes.builds_empty:
        model = _whole(spec, tokenizer.vocab_size, store)
    run = Run(directory.path, spec, model, tokenizer, trainer.step, directory.read_provenance())
    run.ended = trainer.ended
    return run


def _training_batches(windows: Windows | PackedWindows | MixedWindows) -> TrainingBatches:
    def batches(step: int, size: int, seed: int, /, *, first: int, mixtures: Sequence[Mixture] = ()) -> Batch:
        if isinstance(windows, MixedWindows):
            return windows.batch(step, size, seed, first=first, mixtures=mixtures)
        if mixtures:
            raise TrainingError(
                "a callback plans a mixture, but the data has no sources",
                hint="Use data: mixture, or remove the callback from training.callbacks.",
            )
        return windows.batch(step, size, seed, first=first)

    return batches


def _batches(windows: Windows | None, batch_size: int, max_batches: int | None) -> Iterator[Batch]:
    return iter(()) if windows is None else windows.batches(batch_size, max_batches)


def initial_model(spec: ExperimentSpec, tokenizer: Tokenizer, processes: Processes) -> GPT:
    """Return the model of a new run; on the meta device if it is sharded over processes.

    Raises:
        CapacityError: a step does not fit in memory.
        GptkitError: something that the training loss requires is missing, or does not match the tokenizer.
    """
    device = "meta" if processes.builds_empty else "cpu"
    shards = processes.shard * processes.tensor
    model = new_model(spec, tokenizer.vocab_size, device=device, to_train=True, shards=shards)
    before_training(model, tokenizer)
    return model


def _distributed(model: GPT, spec: ExperimentSpec, processes: Processes, *, empty: bool) -> nn.Module | None:
    """Return the model wrapped for several processes, allocated and initialized if it is sharded."""
    if processes.count == 1:
        return None
    from gptkit.training.parallel.shard import distribute, replicate

    training = spec.training
    if processes.tensor > 1:
        require_divisible(training)
    device = pick_device(training.device)
    if processes.builds_empty:
        distribute(model, processes, device, None if empty else derive(training.seed, "weights"))
    if processes.shard > 1 or processes.parts == 1:
        return model
    return replicate(model.to(device), processes)


def require_divisible(training: TrainingSpec) -> None:
    """Raise an error if a setting of the training cannot be combined with tensor parallelism."""
    if not training.optimizer.elementwise:
        raise TrainingError(
            f"training.parallel.tensor divides matrices, and the optimizer {training.optimizer.name!r} needs whole ones",
            hint="Use training.parallel.shard in place of tensor, or an elementwise optimizer such as adamw.",
        )
    if training.compile:
        raise TrainingError(
            "training.compile cannot be combined with training.parallel.tensor",
            hint="Set training.compile to false, or use training.parallel.shard in place of tensor.",
        )


def _whole(spec: ExperimentSpec, vocab_size: int, store: CheckpointStore) -> GPT:
    """Return the model of the newest checkpoint, which is not sharded."""
    checkpoint = store.latest()
    if checkpoint is None:
        # Interrupted before the first step.
        raise KeyboardInterrupt
    model = new_model(spec, vocab_size, fill=False)
    load_weights(model, checkpoint, assign=True)
    return model


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
            # The same seed for every step, so that samples differ by the weights only.
            seed=derive(training.seed, "sample") % 2**32,
        )
        return training.sample_prompt + result.text

    return write


def _training_flops(spec: ExperimentSpec, vocab_size: int) -> float:
    """Return the operations of a training step per token."""
    return 3 * flops_per_token(GPT(spec.model, vocab_size, device="meta"), spec.window)


def _product_rate(spec: ExperimentSpec) -> float:
    device = pick_device(spec.training.device)
    return known_product_rate(device, pick_precision(spec.training.precision, device))


def _text_bytes(prepared: Prepared, spec: ExperimentSpec, tokenizer: Tokenizer) -> TextBytes:
    """Return the function of the bytes of text of the validation's targets."""
    windows = ordered_windows(prepared.validation, spec.data, spec.window)

    @cache
    def text(max_windows: int) -> Windows | None:
        if windows is None:
            return None
        file, counts = prepared.validation, prepared.validation_counts
        return text_windows(file, counts, windows.context_length, tokenizer, max_windows)

    def text_bytes(batch_size: int, max_batches: int) -> Iterable[Tensor] | None:
        sizes = text(batch_size * max_batches)
        return None if sizes is None else (batch.targets_BT for batch in sizes.batches(batch_size, max_batches))

    return text_bytes


def _plugin_trackers(registry: Registry, start: TrainingStart) -> Iterable[tuple[str, Any]]:
    return ((plugin.provenance, returned) for plugin, returned in registry.call("gptkit_trackers", start=start))
