"""The training loop.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from gptkit.checkpoint.store import CheckpointStore, load_weights, read_state, restore_optimizer
from gptkit.core.errors import TrainingError
from gptkit.kinds.tracker import TrainingStart
from gptkit.model.gpt import GPT
from gptkit.nn.head import IGNORED
from gptkit.training.evaluation import Batch, documents, evaluate, to_device
from gptkit.training.observer import Observer, Observers
from gptkit.training.precision import autocast, pick_device, pick_precision
from gptkit.training.seeds import derive
from gptkit.training.spec import TrainingSpec
from gptkit.training.stop import StopRequest

__all__ = ["Trainer"]

TrainingBatches = Callable[[int, int, int], Batch]
"""The batch of a step, given the step, the number of windows and a seed: a pure function, `Windows.batch` say."""

ValidationBatches = Callable[[int, int], Iterable[Batch]]
"""Batches to validate on, given the number of windows and of batches at most: the same every time."""


class Trainer:
    """Trains one model.

    Args:
        model: an `nn.Module` with ``model(ids_BT, targets_BT).loss``; it is moved to the training's device.
        spec: how.
        train: gives the batch of a step.
        validation: gives the batches to validate on; None for no validation.
        checkpoints: where checkpoints go.
        observers: told in this order.
        write: makes a sample of text, given the number of steps done; None for no samples.
        describe: the resolved spec as plain data, for trackers.

    Attributes:
        step: how many steps are done.
        stopped: whether somebody asked to stop before the last step.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: TrainingSpec,
        train: TrainingBatches,
        validation: ValidationBatches | None = None,
        *,
        checkpoints: CheckpointStore,
        observers: Iterable[Observer] = (),
        write: Callable[[int], str] | None = None,
        describe: Mapping[str, Any] | None = None,
    ) -> None:
        self.spec = spec
        self.device = pick_device(spec.device)
        self.precision = pick_precision(spec.precision, self.device)
        self.model = model.to(self.device)
        if isinstance(model, GPT):
            model.recompute = spec.recompute
        elif spec.recompute != "none":
            raise TrainingError(
                f"training.recompute is {spec.recompute!r}, but the model is a {type(model).__name__}, not a GPT",
                hint="Set training.recompute to none.",
            )
        self.optimizer = spec.optimizer.build(model)
        self.step = self._saved = 0
        self.stopped = False
        self._forward = cast("nn.Module", torch.compile(model)) if spec.compile else model
        self._train, self._validation = train, validation
        self._checkpoints = checkpoints
        self._observers = Observers(observers)
        self._write = write
        self._describe = dict(describe or {})
        self._parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self._peak_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._fresh: list[Tensor] = []  # loss and gradient norm of steps whose numbers have not been fetched yet
        self._since_log: list[list[float]] = []  # the same, fetched, of the steps since the last line of metrics
        self._tokens, self._since = 0, time.perf_counter()

    def resume(self, checkpoint: Path) -> None:
        """Go back to where a checkpoint was saved.

        Raises:
            CheckpointError: it is damaged or of another model or optimizer.
        """
        state = read_state(checkpoint, verify=True)
        load_weights(self.model, checkpoint)
        if state["optimizer"] is None:
            # Weights from elsewhere: the training begins with them.
            return
        restore_optimizer(self.optimizer, self.model, checkpoint, state)
        self.step = self._saved = state["step"]
        self._since_log = state["training"]["since_log"]
        self._observers.restore(state["training"]["observers"])

    def run(self) -> None:
        """Train to the last step, or until SIGINT or SIGTERM; a checkpoint of the last step done is there afterwards.

        Raises:
            TrainingError: the loss or the gradients are no longer finite. Nothing is saved then.
        """
        steps = self.spec.steps
        cards = [torch.cuda.current_device()] if self.device.type == "cuda" else []
        try:
            # The caller's random numbers stay as they are: a step begins with a seed of its own.
            with StopRequest() as stop, torch.random.fork_rng(cards):
                folder = self._checkpoints.folder.parent
                self._observers.on_start(TrainingStart(folder, self.step, steps, self._describe))
                self.model.train()
                if self.step == 0:
                    self._report(self._validate(), sample=True)
                self._since = time.perf_counter()
                while self.step < steps and not stop:
                    self._fresh.append(self._take_step())
                    self.step += 1
                    self._after_step()
                self.stopped = self.step < steps
                if self._saved != self.step:
                    self._save()
        except BaseException as error:
            self._observers.on_end(self.step, error)
            raise
        self._observers.on_end(self.step, KeyboardInterrupt() if self.stopped else None)

    def _take_step(self) -> Tensor:
        """One optimizer step; the loss and the gradient's norm, still on the device."""
        spec = self.spec
        torch.manual_seed(derive(spec.seed, "step", self.step))
        factor = spec.schedule.factor(self.step, spec.steps)
        for group, rate in zip(self.optimizer.param_groups, self._peak_rates, strict=True):
            group["lr"] = rate * factor
        batch = self._train(self.step, spec.batch_size, spec.seed)
        self._tokens += batch[0].numel()
        total = torch.zeros((), device=self.device)
        for inputs_BT, targets_BT, documents_BT, share in _parts(batch, spec.grad_accumulation):
            with autocast(self.device, self.precision):
                inputs_BT, targets_BT = to_device(inputs_BT, targets_BT, device=self.device)
                loss = self._forward(inputs_BT, targets_BT, **documents(documents_BT, self.device)).loss
            loss = loss * share
            loss.backward()
            total += loss.detach()
        norm = nn.utils.clip_grad_norm_(self._parameters, spec.clip or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return torch.stack((total, norm.to(total.dtype)))

    def _after_step(self) -> None:
        spec, last = self.spec, self.step == self.spec.steps

        def due(every: int | None) -> bool:
            return last or (every is not None and self.step % every == 0)

        looks = (spec.log_every, spec.evaluate_every, spec.sample_every, spec.checkpoint_every)
        if self.device.type == "cpu" or any(due(every) for every in looks):
            self._fetch()
        self._observers.on_step(self.step)
        metrics = self._training_metrics() if due(spec.log_every) else {}
        paused = time.perf_counter()
        if due(spec.evaluate_every):
            metrics |= self._validate()
        self._report(metrics, sample=due(spec.sample_every))
        if due(spec.checkpoint_every):
            self._save()
        # Validating, writing and saving do not count as time spent on tokens.
        self._since += time.perf_counter() - paused

    def _save(self) -> None:
        self._fetch()
        training = {"since_log": self._since_log, "observers": self._observers.state()}
        path = self._checkpoints.save(self.step, self.model, self.optimizer, training)
        self._saved = self.step
        self._observers.on_checkpoint(self.step, path)

    def _fetch(self) -> None:
        """Wait for the steps under way and look at their numbers."""
        if not self._fresh:
            return
        values: list[list[float]] = torch.stack(self._fresh).tolist()
        first = self.step - len(values) + 1
        for step, (loss, norm) in enumerate(values, start=first):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise self._not_finite(step, loss, norm)
        self._since_log += values
        self._fresh.clear()

    def _training_metrics(self) -> dict[str, float]:
        if not self._since_log:
            return {}
        losses, norms = zip(*self._since_log, strict=True)
        self._since_log = []
        now = time.perf_counter()
        metrics = {
            "loss": sum(losses) / len(losses),
            "grad_norm": sum(norms) / len(norms),
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "tokens_per_second": self._tokens / max(now - self._since, 1e-9),
        }
        self._tokens, self._since = 0, now
        return metrics

    def _validate(self) -> dict[str, float]:
        if self._validation is None:
            return {}
        batches = self._validation(self.spec.batch_size, self.spec.evaluate_batches)
        found = evaluate(self._forward, batches, device=self.device, precision=self.precision)
        if found is None:
            return {}
        metrics = {"validation_loss": found.loss, "validation_perplexity": found.perplexity}
        return {name: value for name, value in metrics.items() if math.isfinite(value)}

    def _report(self, metrics: dict[str, float], *, sample: bool) -> None:
        if metrics:
            self._observers.on_metrics(self.step, metrics)
        if sample and self._write is not None:
            self.model.eval()
            text = self._write(self.step)
            self.model.train()
            self._observers.on_sample(self.step, text)

    def _not_finite(self, step: int, loss: float, norm: float) -> TrainingError:
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradients are not finite (their norm is {norm})"
        latest = self._checkpoints.latest()
        rescue = f"The last good checkpoint is {latest}. " if latest else "There is no checkpoint yet. "
        advice = ["lower training.optimizer.learning_rate", "give the schedule more warmup_steps"]
        if self.spec.clip is None:
            advice.append("set training.clip to 1.0")
        if self.precision != torch.float32:
            advice.append("set training.precision to fp32")
        return TrainingError(f"{what} at step {step}", hint=f"{rescue}To train on, {', or '.join(advice)}.")


def _parts(batch: Batch, count: int) -> Iterable[tuple[Tensor, Tensor, Tensor | None, float]]:
    """Equal parts of a batch, each with the share of the batch's loss that it has: its share of the targets."""
    if count == 1:
        yield *batch, 1.0
        return
    inputs_BT, targets_BT, documents_BT = batch
    several = documents_BT.chunk(count) if documents_BT is not None else [None] * count
    n_targets = max(1, int((targets_BT != IGNORED).sum()))
    for inputs, targets, document in zip(inputs_BT.chunk(count), targets_BT.chunk(count), several, strict=True):
        n_here = int((targets != IGNORED).sum())
        if n_here:
            yield inputs, targets, document, n_here / n_targets
