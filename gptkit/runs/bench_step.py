"""Training steps of a spec on random tokens, to be measured.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from gptkit.core.memory import explain_exhaustion
from gptkit.kinds.callback import Training
from gptkit.nn.freezing import freeze
from gptkit.runs.bench_timeline import Timeline, timed_step
from gptkit.runs.build import new_model
from gptkit.runs.sizes import refuse_oversized_batch
from gptkit.runs.spec import ExperimentSpec
from gptkit.training.compilation import accelerate, release
from gptkit.training.evaluation import Batch
from gptkit.training.groups import build_optimizer
from gptkit.training.precision import pick_device, pick_precision
from gptkit.training.rate import synchronize
from gptkit.training.seeds import derive
from gptkit.training.stage_spec import StageSpec
from gptkit.training.stages import Stages
from gptkit.training.step import TrainingStep

__all__ = ["StepTrial", "step_size"]

_MEAN_DOCUMENT = 256
"""Mean number of tokens of the random documents, where the spec masks documents."""


def step_size(spec: ExperimentSpec, stage: StageSpec | None) -> tuple[int, int]:
    """Return the number of data windows of a step of a stage, and of tokens of each; those of the spec without a stage."""
    if stage is None:
        return spec.training.batch_size, spec.window
    return stage.batch_size or spec.training.batch_size, stage.window or spec.window


class StepTrial:
    """Model, optimizer and batch of a spec, as in its training, without callbacks and in one process.

    Args:
        spec: the spec; the weights are initialized, also where it loads some (`training.init_from`).
        vocab_size: the vocabulary size.
        stage: the stage of the training whose step is measured, with its batch, attention window and loss weights; None for
            what the training section sets for all.

    Raises:
        CapacityError: a step does not fit in memory.
    """

    def __init__(self, spec: ExperimentSpec, vocab_size: int, stage: StageSpec | None = None) -> None:
        training = spec.training
        self.spec = spec
        self._size = step_size(spec, stage)
        self.device = pick_device(training.device)
        self.precision = pick_precision(training.precision, self.device)
        refuse_oversized_batch(spec)
        with self._explained():
            self.model = new_model(spec, vocab_size, to_train=True).to(self.device)
        self.model.recompute = training.recompute
        freeze(self.model, training.freeze)
        self.optimizer = build_optimizer(training.optimizer, self.model)
        forward = accelerate(self.model, self.model, training, self.device)
        self._step = TrainingStep(
            forward,
            self.optimizer,
            device=self.device,
            precision=self.precision,
            accumulation=training.grad_accumulation,
            clip=training.clip,
        )
        self._step.rates.set_factor(training.schedule.factor(0, training.steps))
        self._batch = _random_batch(spec, vocab_size, *self._size)
        self.model.train()
        if stage is not None:
            stages = Stages(training.replace(stages=(stage.replace(steps=None),)))
            stages.setup(Training(self.model, self.optimizer, training.steps, training.seed))
            stages.on_step_start(0)

    @property
    def tokens(self) -> int:
        """Number of tokens of a step."""
        return self._batch[0].numel()

    def step(self) -> float:
        """Take one step; return its seconds."""
        with self._explained():
            synchronize(self.device)
            start = time.perf_counter()
            self._step(self._batch, _nothing)
            synchronize(self.device)
            return time.perf_counter() - start

    def profile(self) -> dict[tuple[str, str], float]:
        """Take one step; return its seconds by phase and component."""
        timeline = Timeline(self.device)
        with self._explained(), timed_step(self.model, self.optimizer, timeline) as before_update:
            self._step(self._batch, before_update)
        return timeline.seconds()

    def close(self) -> None:
        """Undo the changes of the model for training."""
        release(self.model)

    def _explained(self) -> AbstractContextManager[None]:
        batch_size, window = self._size
        rows = batch_size // self.spec.training.grad_accumulation
        return explain_exhaustion(
            f"a training step of {rows:,} × {window:,} tokens at once",
            "Lower training.batch_size or training.window, raise training.grad_accumulation, or set training.recompute "
            "to blocks.",
        )


def _nothing() -> None:
    pass


def _random_batch(spec: ExperimentSpec, vocab_size: int, *shape: int) -> Batch:
    generator = torch.Generator().manual_seed(derive(spec.training.seed, "bench") % 2**63)
    ids_BT: Tensor = torch.randint(vocab_size, (shape[0], shape[1] + 1), generator=generator)
    documents_BT = None
    if spec.data.document_mask:
        starts_BT = torch.rand(shape, generator=generator) < 1 / _MEAN_DOCUMENT
        documents_BT = starts_BT.long().cumsum(1)
    return ids_BT[:, :-1].contiguous(), ids_BT[:, 1:].contiguous(), documents_BT
