"""Evaluation of a trained variant: its loss, also by position, decoding speed, and samples.

Shapes: B batch, T tokens, N positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.core.errors import GptkitError, SpecError
from gptkit.data.prepared import ordered_windows
from gptkit.experiments.results import Trial
from gptkit.files import validate_data
from gptkit.inference.modes import evaluating
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.nn.head import IGNORED
from gptkit.runs.bench_decoding import decoding_speed
from gptkit.runs.directory import RunDirectory
from gptkit.runs.run import Run
from gptkit.training.evaluation import documents
from gptkit.training.metrics import Metrics
from gptkit.training.precision import autocast, pick_precision
from gptkit.training.summary import summarize

__all__ = ["evaluate_trial", "loss_beyond", "loss_by_position"]

MAX_TOKENS = 1 << 20
"""Number of validation tokens that the loss is measured on, at most."""

MAX_POSITION_TOKENS = 1 << 17
"""Number of validation tokens that the losses by position are measured on, at most."""

_LOGITS = 1 << 24
"""Number of logits in memory at a time."""

_SAMPLES, _SAMPLE_TOKENS, _DECODED = 3, 100, 64
_POINTS = 400


def evaluate_trial(run: Run, variant: str, seed: int, directory: str, peak_memory: int | None) -> Trial:
    """Return the results of a finished training.

    Args:
        run: the run.
        variant: key of the variant.
        seed: the seed.
        directory: the run directory, relative to that of the experiment.
        peak_memory: peak memory of the training in bytes.

    Raises:
        GptkitError: the corpus has no validation split.
    """
    per_batch = run.spec.training.batch_size * run.spec.window
    measured = run.evaluate(max_batches=max(1, MAX_TOKENS // per_batch))
    metrics = Metrics.read(RunDirectory(run.directory).metrics)
    summary = summarize(metrics, run.step)
    beyond = loss_beyond(run)
    return Trial(
        variant,
        seed,
        "finished",
        run=directory,
        validation_loss=_finite(measured["loss"]),
        best_validation_loss=_finite(summary.best_validation_loss),
        bits_per_byte=_finite(measured.get("bits_per_byte")),
        tokens=summary.tokens,
        seconds=summary.seconds,
        tokens_per_second=summary.tokens_per_second,
        decode_tokens_per_second=_decoding_rate(run),
        peak_memory=peak_memory,
        curve=curve_of(metrics),
        loss_by_position=_listed(loss_by_position(run, run.model, run.spec.window)),
        loss_beyond=None if beyond is None else _listed(beyond),
        samples=_samples(run),
    )


def curve_of(metrics: Metrics) -> tuple[tuple[int, int, float | None, float | None], ...]:
    """Return step, tokens, validation loss and training loss of the lines of metrics that have a loss.

    Of many lines, evenly spread ones and all with a validation loss are kept.
    """
    training, validation = dict(metrics.points("loss")), dict(metrics.points("validation_loss"))
    counts = dict(metrics.points("tokens"))
    steps = sorted({*training, *validation})
    kept = {*steps[:: math.ceil(len(steps) / _POINTS)], *steps[-1:], *validation} if steps else set()
    points, tokens = [], 0
    for step in steps:
        tokens = int(counts.get(step, tokens))
        if step in kept:
            points.append((step, tokens, _finite(validation.get(step)), _finite(training.get(step))))
    return tuple(points)


def loss_by_position(run: Run, model: GPT, length: int) -> Tensor | None:
    """Return the mean loss of each position of the validation's data windows.

    Args:
        run: the run, whose corpus is used.
        model: its model, or one with a longer context.
        length: N, the number of tokens of a data window.

    Returns:
        (N,), in nats; None if the validation split is shorter than a data window.
    """
    windows = ordered_windows(run.prepared().validation, run.spec.data, length)
    if windows is None or windows.context_length < length:
        return None
    rows = max(1, _LOGITS // (length * model.vocab_size))
    n_batches = max(1, MAX_POSITION_TOKENS // (rows * length))
    precision = pick_precision(run.spec.training.precision, model.device)
    nats_N = torch.zeros(length, dtype=torch.float64)
    counts_N = torch.zeros(length, dtype=torch.float64)
    with torch.no_grad(), evaluating(model):
        for batch in windows.batches(rows, n_batches):
            if batch.inputs_BT.shape[1] < length:
                continue  # the shorter data window at the end
            targets_BT = batch.targets_BT.to(model.device)
            with autocast(model.device, precision):
                options = documents(batch.documents_BT, model.device)
                logits_BTV = model(batch.inputs_BT.to(model.device), **options).logits
            losses_BT = F.cross_entropy(
                logits_BTV.float().flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORED, reduction="none"
            ).view_as(targets_BT)
            nats_N += losses_BT.double().sum(0).cpu()
            counts_N += (targets_BT != IGNORED).double().sum(0).cpu()
    return nats_N / counts_N


def loss_beyond(run: Run) -> Tensor | None:
    """Return the mean loss of each position after those of the training, up to twice as many.

    Returns:
        (N,) for N trained positions; None if the position encoding has no more positions, or the validation split is
        shorter than that.
    """
    length = run.spec.window
    model = _with_context(run.model, 2 * length)
    if model is None:
        return None
    losses_N = loss_by_position(run, model, 2 * length)
    return None if losses_N is None else losses_N[length:]


def _with_context(model: GPT, length: int) -> GPT | None:
    """Return the model with a context of at least `length` tokens and the same weights; None if it cannot have it."""
    if model.context_length >= length:
        return model
    try:
        spec = validate_data({**model.spec.model_dump(mode="json"), "context_length": length}, ModelSpec)
    except SpecError:
        return None
    longer = GPT(spec, model.vocab_size, seed=None, device=model.device)
    own = model.state_dict()
    if {name: each.shape for name, each in longer.state_dict().items()} != {name: each.shape for name, each in own.items()}:
        return None  # a table whose size depends on the context length
    longer.load_state_dict(own)
    return longer


def _decoding_rate(run: Run) -> float | None:
    n_tokens = min(_DECODED, run.model.context_length // 2)
    if n_tokens < 2:
        return None
    try:
        return decoding_speed(run.model, run.spec, n_tokens).tokens_per_second
    except GptkitError:
        return None  # a model or sampler that cannot continue random tokens


def _samples(run: Run) -> tuple[str, ...]:
    """Return texts after the sample prompt of the spec, with the seeds 0, 1, …"""
    training = run.spec.training
    if training.sample_tokens == 0:
        return ()
    n_tokens = min(_SAMPLE_TOKENS, training.sample_tokens)
    prompt = training.sample_prompt
    return tuple(prompt + run.generate(prompt, max_new_tokens=n_tokens, seed=seed) for seed in range(_SAMPLES))


def _listed(losses_N: Tensor | None) -> tuple[float, ...] | None:
    """Return the losses as numbers; None if one of them is not finite (positions without targets)."""
    if losses_N is None or not bool(losses_N.isfinite().all()):
        return None
    values: Sequence[float] = losses_N.tolist()
    return tuple(round(value, 6) for value in values)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
