"""Measurement of a spec's training: speed, use of the machine, memory, and time by component."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from gptkit.model.gpt import GPT
from gptkit.model.plan import flops_per_token
from gptkit.runs.bench_advice import Tried, changes, try_changes
from gptkit.runs.bench_decoding import DecodingSpeed, decoding_speed
from gptkit.runs.bench_memory import PeakMemory
from gptkit.runs.bench_stages import StageSpeed, largest_stage, stage_speeds
from gptkit.runs.bench_step import StepTrial, step_size
from gptkit.runs.bench_timeline import ComponentTime, component_times
from gptkit.runs.sizes import training_plan
from gptkit.runs.spec import ExperimentSpec
from gptkit.training.precision import pick_device, pick_precision
from gptkit.training.rate import product_rate

__all__ = ["BenchResult", "bench"]

_NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32"}


@dataclass(frozen=True)
class BenchResult:
    """Measured training steps of a spec.

    Attributes:
        device: the type of device.
        device_name: its name.
        threads: number of torch's threads.
        precision: bf16, fp32, or fp8.
        product_precision: bf16 or fp32, the precision of the products that `product_rate` is the rate of.
        batch_size: data windows of a step.
        window: tokens of a data window.
        accumulation: number of parts of a batch.
        step_seconds: seconds of each step, without warmup.
        tokens_per_second: median over the steps.
        lowest: tokens per second of the slowest step.
        highest: tokens per second of the fastest step.
        flops_per_token: floating-point operations of a training step per token.
        flops_per_second: flops_per_token · tokens_per_second.
        product_rate: the rate of large matrix products in `product_precision`, in operations per second.
        utilization: flops_per_second / product_rate.
        peak_bytes: peak memory of the steps above that of the process before the model was built; None if unknown.
        planned_bytes: what the plan expects.
        components: time by component and phase, which adds up to the median step.
        profiled_seconds: seconds of the step with instrumentation, from which the shares are.
        tried: changes and what they gain.
        decoding: speed of decoding, if it was measured.
        stage: the number of the stage that was measured, from 1: that with the most tokens; None without stages.
        stages: the speed of each stage.
    """

    device: str
    device_name: str
    threads: int
    precision: str
    product_precision: str
    batch_size: int
    window: int
    accumulation: int
    step_seconds: list[float]
    tokens_per_second: float
    lowest: float
    highest: float
    flops_per_token: float
    flops_per_second: float
    product_rate: float
    utilization: float
    peak_bytes: int | None
    planned_bytes: int
    components: list[ComponentTime]
    profiled_seconds: float
    tried: list[Tried]
    decoding: DecodingSpeed | None = None
    stage: int | None = None
    stages: list[StageSpeed] = field(default_factory=list)


def bench(
    spec: ExperimentSpec,
    vocab_size: int,
    *,
    steps: int = 5,
    warmup: int = 2,
    advise: bool = True,
    generate: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BenchResult:
    """Take a few training steps of a spec on random tokens, and measure them.

    In a training with stages, the steps are those of the stage with the most tokens; two more of each other stage are taken.

    Args:
        spec: the spec, with the device, precision, batch and optimizer of its training.
        vocab_size: the vocabulary size.
        steps: number of measured steps.
        warmup: number of steps before them.
        advise: try changes that may be faster.
        generate: also measure decoding of this number of tokens.
        progress: called with the completed and the total amount of work.

    Raises:
        CapacityError: a step does not fit in memory.
        GptkitError: `generate` does not fit into the model's context.
    """
    training = spec.training
    device = pick_device(training.device)
    precision = pick_precision(training.precision, device)
    stage = largest_stage(spec)
    stage_spec = None if stage is None else training.stages[stage]
    batch_size, window = step_size(spec, stage_spec)
    candidates = list(changes(spec, vocab_size, stage)) if advise else []
    before = warmup + steps + 2
    total = before + 3 * (len(candidates) + len(training.stages))

    def report(done: int) -> None:
        if progress is not None:
            progress(done, total)

    rate = product_rate(device, precision)
    flops = 3 * flops_per_token(GPT(spec.model, vocab_size, device="meta"), window)
    planned = training_plan(spec, vocab_size)
    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        memory = PeakMemory(device)
        trial = StepTrial(spec, vocab_size, stage_spec)
        try:
            seconds = []
            for index in range(warmup + steps):
                report(index)
                seconds.append(trial.step())
            del seconds[:warmup]
            peak = memory.bytes
            report(warmup + steps)
            trial.profile()  # the first one compiles, allocates and imports more
            profile = trial.profile()
            decoding = None if generate is None else decoding_speed(trial.model, spec, generate)
        finally:
            trial.close()
        tokens, step = trial.tokens, statistics.median(seconds)
        del trial
        stages: list[StageSpeed] = []
        if stage is not None:
            stages = stage_speeds(spec, vocab_size, stage, tokens / step, progress=lambda done: report(before + 3 * done))
        before += 3 * len(stages)
        tried = try_changes(candidates, vocab_size, tokens / step, progress=lambda done, _: report(before + 3 * done))
    return BenchResult(
        device=device.type,
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper(),
        threads=torch.get_num_threads(),
        precision="fp8" if training.precision == "fp8" else _NAMES[precision],
        product_precision=_NAMES[precision],
        batch_size=batch_size,
        window=window,
        accumulation=training.grad_accumulation,
        step_seconds=seconds,
        tokens_per_second=tokens / step,
        lowest=tokens / max(seconds),
        highest=tokens / min(seconds),
        flops_per_token=flops,
        flops_per_second=flops * tokens / step,
        product_rate=rate,
        utilization=flops * tokens / step / rate,
        peak_bytes=peak,
        planned_bytes=planned.training_bytes,
        components=component_times(profile, step),
        profiled_seconds=sum(profile.values()),
        tried=tried,
        decoding=decoding,
        stage=None if stage is None else stage + 1,
        stages=stages,
    )
