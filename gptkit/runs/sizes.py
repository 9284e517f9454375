"""Sizes of a spec's training, and rejection of batches that cannot fit in memory, before allocation."""

from __future__ import annotations

from dataclasses import replace

from gptkit.model.gpt import GPT
from gptkit.model.plan import Plan, available_memory, plan, refuse_unless_fits
from gptkit.runs.spec import ExperimentSpec
from gptkit.training.precision import pick_device, pick_precision

__all__ = ["HEAP", "LIBRARIES", "refuse_oversized_batch", "training_plan"]

HEAP = 1.12
"""Memory of a training on a CPU, divided by that of its tensors: free parts of the heap. Fitted to four presets."""

LIBRARIES = 50_000_000
"""Memory of the code and the buffers of libraries that a training on a CPU uses first; fitted to the same presets."""

_SMALL = 50
"""A step is planned unless its lower bound is smaller than the memory by this factor; activations are 10 to 30 times it."""

_MARGIN = 1.2
"""Planned memory is divided by this before the comparison, so that no training that fits is refused."""

_FEWEST_IDS = 256
"""Vocabulary size of a plan made before the tokenizer is trained."""


def training_plan(spec: ExperimentSpec, vocab_size: int, model: GPT | None = None) -> Plan:
    """Return the sizes of a spec's model and of its training on this machine in one process.

    Args:
        spec: the spec.
        vocab_size: the vocabulary size.
        model: the model on the meta device, if it was built already.
    """
    training = spec.training
    # A device that this machine lacks is reported when the training starts, not here.
    device = pick_device(training.device if training.device == "cpu" else "auto")
    batch_size, window = training.largest_step(spec.window)
    sizes = plan(
        spec.model,
        vocab_size,
        batch_size=max(1, batch_size // training.grad_accumulation),
        window=window,
        freeze=training.freeze,
        recompute=training.recompute,
        precision=pick_precision(training.precision, device),
        optimizer=training.optimizer,
        accumulates=training.grad_accumulation > 1,
        model=model,
    )
    if device.type != "cpu":
        return sizes
    return replace(sizes, training_bytes=int(HEAP * sizes.training_bytes) + LIBRARIES)


def refuse_oversized_batch(spec: ExperimentSpec, n_processes: int = 1) -> None:
    """Raise an error if a step does not fit in memory.

    First a lower bound is compared: the batch's token ids, and for each part the input of every block at two bytes per
    element. If it is not small, the step is planned, for which the model is built on the meta device; plans are within 10 %
    of what trainings use.

    Args:
        spec: the spec.
        n_processes: the number of processes that share each batch.

    Raises:
        CapacityError: memory is insufficient; gives the numbers.
    """
    training, model = spec.training, spec.model
    batch_size, window = training.largest_step(spec.window)
    rows = max(1, batch_size // training.grad_accumulation // n_processes)
    ids = 2 * 8 * batch_size * window
    inputs = 2 * rows * window * model.d_model * model.n_layers
    what = f"training.batch_size: a step of {rows:,} data windows of {window:,} tokens at a time"
    device = pick_device(training.device)
    refuse_unless_fits(ids + inputs, what, device)
    if n_processes > 1 or ids + inputs < available_memory(device) // _SMALL:
        return
    try:
        planned = training_plan(spec, spec.model.vocab_size or _FEWEST_IDS).training_bytes
    except (RuntimeError, NotImplementedError):
        return  # a component does not run on the meta device
    refuse_unless_fits(int(planned / _MARGIN), what, device)
