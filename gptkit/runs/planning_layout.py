"""Layout that a user chose, and the correction of a device's rates by measured steps."""

from __future__ import annotations

import statistics

import torch

from gptkit.core.errors import GptkitError
from gptkit.runs.bench_step import StepTrial
from gptkit.runs.planning import plan_training
from gptkit.runs.planning_devices import Device, with_rates
from gptkit.runs.planning_time import Layout
from gptkit.runs.spec import ExperimentSpec

__all__ = ["calibrated", "chosen_layout"]


def chosen_layout(
    spec: ExperimentSpec, n_devices: int, data: int | None, shard: int | None, tensor: int | None
) -> Layout | None:
    """Return the layout from the command line, else that of the spec; None if neither names one.

    Raises:
        GptkitError: the factors do not divide the number of devices.
    """
    parallel = spec.training.parallel
    if data is shard is tensor is None:
        data = parallel.data
        shard = parallel.shard if parallel.shard > 1 else None
        tensor = getattr(parallel, "tensor", 1) if getattr(parallel, "tensor", 1) > 1 else None
        if data is shard is tensor is None:
            return None
    divided = (shard or 1) * (tensor or 1)
    if data is None:
        if n_devices % divided:
            raise GptkitError(
                f"{n_devices} devices cannot form groups of {divided} (shard {shard or 1} × tensor {tensor or 1})",
                hint="Choose factors whose product divides --gpus.",
            )
        data = n_devices // divided
    return Layout(data, shard or 1, tensor or 1)


def calibrated(spec: ExperimentSpec, vocab_size: int, device: Device, steps: int = 3) -> tuple[Device, float]:
    """Return the device with rates corrected by steps of the spec on this machine, and the factor.

    Args:
        spec: the spec; its steps are taken in one process.
        vocab_size: the vocabulary size.
        device: the device.
        steps: number of measured steps, after two that do not count.

    Raises:
        GptkitError: the device is not this machine's.
    """
    here = "cpu" if not torch.cuda.is_available() else torch.cuda.get_device_name()
    same = device.name == "cpu" if here == "cpu" else device.name.lower() in here.lower()
    if not same:
        raise GptkitError(
            f"--measure takes steps on this machine, whose device is {here!r}, not {device.title}",
            hint="Measure on a machine with that device, or pass --gpu cpu.",
        )
    local = spec.replace(training=spec.training.replace(device="cpu" if device.name == "cpu" else "cuda"))
    modeled = plan_training(local, vocab_size, device)
    trial = StepTrial(local, vocab_size)
    try:
        seconds = [trial.step() for _ in range(2 + steps)][2:]
    finally:
        trial.close()
    factor = statistics.median(seconds) / modeled.step_seconds
    return with_rates(device, factor), factor
