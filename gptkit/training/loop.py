"""Training loop: steps, metrics, validation, samples, checkpoints, and stopping."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.checkpoint.store import CheckpointStore
from gptkit.core.errors import TrainingError
from gptkit.kinds.callback import Callback, StepPlan, Training
from gptkit.kinds.tracker import TrainingStart
from gptkit.model.gpt import GPT
from gptkit.nn.freezing import freeze
from gptkit.nn.tensor_parallel import tensor_shards
from gptkit.training.callback import Callbacks
from gptkit.training.compilation import accelerate, eager, release
from gptkit.training.config import TrainingSpec
from gptkit.training.evaluation import Batch, evaluate, with_weights
from gptkit.training.failures import explained, not_finite, warn_of_no_targets
from gptkit.training.groups import build_optimizer
from gptkit.training.internal import internal_callbacks
from gptkit.training.parallel.processes import Processes
from gptkit.training.precision import pick_device, pick_precision
from gptkit.training.prefetch import Prefetched, TrainingBatches
from gptkit.training.saving import Saver
from gptkit.training.seeds import derive
from gptkit.training.state import TrainingState
from gptkit.training.step import TrainingStep
from gptkit.training.stop import StopRequest

__all__ = ["TextBytes", "Trainer", "TrainingBatches", "ValidationBatches"]


ValidationBatches = Callable[[int, int], Iterable[Batch]]
"""Function of the maximum numbers of windows and batches that returns the validation batches, always the same."""

TextBytes = Callable[[int, int], Iterable[Tensor] | None]
"""Function of the same numbers that returns the bytes of text of their targets, as for `evaluate`; None if unknown."""


class Trainer:
    """Training of one model.

    Args:
        model: an `nn.Module` with ``model(ids_BT, targets_BT).loss``; it is moved to the device of the training.
        spec: the training section of a spec.
        train: returns the batch of a step.
        validation: returns the validation batches; None for no validation.
        checkpoints: the checkpoint store.
        callbacks: called in this order, after those of the spec.
        text_bytes: returns the bytes of text of the validation's targets, for bits per byte; None for no such metric.
        parts: returns the validation batches of each part of a mixture, by its name.
        write: returns a sample of text, given the number of completed steps; None for no samples.
        describe: the resolved spec as plain data, for trackers.
        processes: the processes of the training, each with a trainer.
        forward: the callable model, if it is wrapped for data parallelism; it must be on its device.

    Attributes:
        step: number of completed steps.
        stopped: whether a signal requested a stop before the last step.
        ended: whether a callback ended the training before the last step.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: TrainingSpec,
        train: TrainingBatches,
        validation: ValidationBatches | None = None,
        *,
        checkpoints: CheckpointStore,
        callbacks: Iterable[Callback] = (),
        text_bytes: TextBytes | None = None,
        parts: Mapping[str, ValidationBatches] | None = None,
        write: Callable[[int], str] | None = None,
        describe: Mapping[str, Any] | None = None,
        processes: Processes | None = None,
        forward: nn.Module | None = None,
    ) -> None:
        self.spec = spec
        self.device = pick_device(spec.device)
        self.precision = pick_precision(spec.precision, self.device)
        self.processes = processes or Processes()
        self.model = model.to(self.device) if forward is None else model
        if isinstance(model, GPT):
            model.recompute = spec.recompute
        elif spec.recompute != "none":
            raise TrainingError(
                f"training.recompute is {spec.recompute!r}, but the model is a {type(model).__name__}, not a GPT",
                hint="Set training.recompute to none.",
            )
        freeze(model, spec.freeze)
        self.optimizer = build_optimizer(spec.optimizer, model)
        self.stopped = self.ended = False
        self._forward = accelerate(model, model if forward is None else forward, spec, self.device)
        self._step = TrainingStep(
            self._forward,
            self.optimizer,
            device=self.device,
            precision=self.precision,
            accumulation=spec.grad_accumulation,
            clip=spec.clip,
            processes=self.processes,
            divided=[each for name, each in model.named_parameters() if name in tensor_shards(model)],
        )
        self._train, self._validation, self._text_bytes = train, validation, text_bytes
        self._parts = dict(parts or {})
        self._checkpoints = checkpoints
        given = (callback.build() for callback in spec.callbacks)
        self._callbacks = Callbacks([*internal_callbacks(spec), *given, *callbacks])
        self._write = write
        self._describe = dict(describe or {})
        self.state = TrainingState(model, self.optimizer)
        self._batches: Prefetched | None = None
        self._saver = Saver(checkpoints, self.processes)
        self._length = 0
        # Loss and gradient norm of steps whose numbers have not been fetched yet, each with the number of steps after it.
        self._fresh: list[tuple[int, Tensor]] = []
        self._tokens, self._since = 0, time.perf_counter()
        self._warned = False

    @property
    def step(self) -> int:
        """Number of completed steps."""
        return self.state.step

    def resume(self, checkpoint: Path) -> None:
        """Restore the state of a checkpoint.

        Raises:
            CheckpointError: it is damaged, or does not fit the model or the optimizer.
        """
        self.state.load(checkpoint)
        self._saver.step = self.step

    def run(self) -> None:
        """Train to the last step, or until SIGINT, SIGTERM or SIGHUP, and save a checkpoint of the last completed step.

        Afterwards the model has the weights to evaluate with, if a callback provides some.

        Raises:
            TrainingError: the loss or the gradients are not finite; no checkpoint is saved.
        """
        with explained(self.spec, self.processes, self._checkpoints):
            self._run()

    def _run(self) -> None:
        steps, state, callbacks = self.spec.steps, self.state, self._callbacks
        devices = [torch.cuda.current_device()] if self.device.type == "cuda" else []
        try:
            # The caller's random state is restored: each step sets a seed.
            with StopRequest(several=self.processes.count > 1) as stop, torch.random.fork_rng(devices):
                callbacks.setup(Training(self.model, self.optimizer, steps, self.spec.seed))
                state.restore_callbacks(callbacks)
                callbacks.on_start(TrainingStart(self._checkpoints.directory.parent, self.step, steps, self._describe))
                self._length = self._train(0, 1, self.spec.seed, first=0)[0].shape[1]
                self._batches = Prefetched(self._train, self.device)
                self.model.train()
                if self.step == 0:
                    self._report({}, evaluate=True, sample=True)
                self._since = time.perf_counter()
                while self.step < steps and not self.processes.any(bool(stop)):
                    if callbacks.may_end and self.processes.any(callbacks.ends(self.step)):
                        self.ended = True
                        break
                    result = self._take_step()
                    state.step += 1
                    if result is not None:
                        self._fresh.append((state.step, result))
                    self._after_step()
                    self._saver.advance(callbacks)
                self.stopped = self.step < steps and not self.ended
                if self._saver.step != self.step:
                    self._save()
                self._saver.finish(callbacks)
                weights = callbacks.evaluation_weights()
                if weights is not None:
                    self._adopt(weights)
        except BaseException as error:
            self._saver.abandon()
            callbacks.on_end(self.step, error)
            raise
        finally:
            release(self.model)
            if self._batches is not None:
                self._batches.close()
        callbacks.on_end(self.step, KeyboardInterrupt() if self.stopped else None)

    def _take_step(self) -> Tensor | None:
        """Take one step; return the loss and the gradient's norm, still on the device, or None if it was skipped."""
        spec, state, callbacks = self.spec, self.state, self._callbacks
        plan = self._plan()
        self._step.rates.set_factor(plan.rate)
        callbacks.on_step_start(state.step)
        # Every part of a batch has dropout masks of its own.
        rank = [self.processes.part] if self.processes.part else []
        torch.manual_seed(derive(spec.seed, "step", state.step, *rank))
        assert self._batches is not None
        last = state.step + 1 == spec.steps
        state.mix(plan.mixture)
        batch = self._batches(
            state.step, plan.batch_size, spec.seed, first=state.windows, mixtures=state.mixtures, last=last
        )
        state.windows += plan.batch_size
        if plan.length < batch[0].shape[1]:
            batch = cut(batch, plan.length)
        self._tokens += batch[0].numel()
        state.tokens += batch[0].numel()
        accepts = partial(callbacks.accepts, state.step) if callbacks.decide else None
        return self._step(batch, lambda: callbacks.on_gradients(state.step), accepts)

    def _plan(self) -> StepPlan:
        spec, step = self.spec, self.step
        planned = self._callbacks.plan(step, StepPlan(spec.schedule.factor(step, spec.steps), spec.batch_size, self._length))
        if planned.batch_size < 1 or not 1 <= planned.length <= self._length or not 0 <= planned.rate < math.inf:
            raise TrainingError(
                f"the callbacks planned step {step} with a batch of {planned.batch_size} windows of {planned.length} tokens "
                f"at {planned.rate} times the learning rate; windows have {self._length} tokens",
                hint="Correct the fields of training.callbacks or training.stages.",
            )
        parts = self._step.parts
        return planned.replace(batch_size=-(-planned.batch_size // parts) * parts)

    def _after_step(self) -> None:
        spec, last = self.spec, self.step == self.spec.steps

        def due(every: int | None) -> bool:
            return last or (every is not None and self.step % every == 0)

        intervals = (spec.log_every, spec.evaluate_every, spec.sample_every, spec.checkpoint_every)
        if self.device.type == "cpu" or any(due(every) for every in intervals):
            self._fetch()
        self._callbacks.on_step(self.step)
        metrics = self._training_metrics() if due(spec.log_every) else {}
        if metrics:
            metrics |= self._callbacks.measure(self.step)
        paused = time.perf_counter()
        self._report(metrics, evaluate=due(spec.evaluate_every), sample=due(spec.sample_every))
        if due(spec.checkpoint_every):
            self._save()
        # Validating, sampling and saving do not count as time spent on tokens.
        self._since += time.perf_counter() - paused

    def _save(self) -> None:
        self._fetch()
        self._saver.save(self.state, self._callbacks)

    def _fetch(self) -> None:
        """Wait for pending steps and check their results."""
        if not self._fresh:
            return
        steps, results = zip(*self._fresh, strict=True)
        values: list[list[float]] = torch.stack(results).tolist()
        for step, (loss, norm) in zip(steps, values, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self._saver.finish(self._callbacks)
                raise not_finite(self.spec, self.precision, self._checkpoints, step, loss, norm)
            if loss == norm == 0 and self.processes.is_main and not self._warned:
                warn_of_no_targets(step)
                self._warned = True
        self.state.since_log += values
        self._fresh.clear()

    def _training_metrics(self) -> dict[str, float]:
        if not self.state.since_log:
            return {}
        # A batch without targets has neither a loss nor a gradient, and is not part of their means.
        losses, norms = zip(*([pair for pair in self.state.since_log if any(pair)] or self.state.since_log), strict=True)
        self.state.since_log = []
        now = time.perf_counter()
        metrics = {
            "loss": sum(losses) / len(losses),
            "grad_norm": sum(norms) / len(norms),
            **self._step.rates.metrics(),
            "tokens": self.state.tokens,
            "tokens_per_second": self._tokens / max(now - self._since, 1e-9),
        }
        self._tokens, self._since = 0, now
        return metrics

    def _report(self, metrics: dict[str, float], *, evaluate: bool, sample: bool) -> None:
        """Evaluate and sample if due, and report."""
        evaluate = evaluate and self._validation is not None
        sample = sample and self._write is not None
        text = ""
        with self._evaluation_weights() if evaluate or sample else contextlib.nullcontext():
            if evaluate:
                metrics = metrics | self._validate()
            if metrics:
                self._callbacks.on_metrics(self.step, metrics)
            if sample and self._write is not None:
                self.model.eval()
                with eager(self.spec.compile):
                    text = self._write(self.step)
                self.model.train()
        if sample:
            self._callbacks.on_sample(self.step, text)

    def _validate(self) -> dict[str, float]:
        assert self._validation is not None
        limits = (self.spec.batch_size, self.spec.evaluate_batches)
        result = evaluate(
            self._forward,
            self._validation(*limits),
            device=self.device,
            precision=self.precision,
            text_bytes=None if self._text_bytes is None else self._text_bytes(*limits),
            processes=self.processes,
        )
        if result is None:
            return {}
        parts = {f"validation_loss/{name}": self._part_loss(batches) for name, batches in self._parts.items()}
        metrics = {"validation_loss": result.loss, "validation_perplexity": result.perplexity}
        if result.bits_per_byte is not None:
            metrics["validation_bits_per_byte"] = result.bits_per_byte
        metrics |= {name: loss for name, loss in parts.items() if loss is not None}
        return {name: value for name, value in metrics.items() if math.isfinite(value)}

    def _part_loss(self, batches: ValidationBatches) -> float | None:
        chosen = batches(self.spec.batch_size, self.spec.evaluate_batches)
        result = evaluate(self._forward, chosen, device=self.device, precision=self.precision, processes=self.processes)
        return None if result is None else result.loss

    @contextlib.contextmanager
    def _evaluation_weights(self) -> Iterator[None]:
        weights = self._callbacks.evaluation_weights()
        with with_weights(self.model, weights) if weights is not None else contextlib.nullcontext():
            yield

    @torch.no_grad()
    def _adopt(self, weights: Mapping[str, Tensor]) -> None:
        parameters = dict(self.model.named_parameters())
        for name, tensor in weights.items():
            parameters[name].copy_(tensor)


def cut(batch: Batch, length: int) -> Batch:
    """Return the first tokens of each data window."""
    inputs_BT, targets_BT, documents_BT = batch
    documents_BT = None if documents_BT is None else documents_BT[:, :length].contiguous()
    return inputs_BT[:, :length].contiguous(), targets_BT[:, :length].contiguous(), documents_BT
