"""Plan of a distributed training: memory per process, time of a step, communication, and the layout that fits."""

from __future__ import annotations

from dataclasses import replace

import torch

from gptkit.core.errors import CapacityError, GptkitError
from gptkit.model.gpt import GPT
from gptkit.model.plan import flops_per_token, human_bytes, state_bytes
from gptkit.model.work import DIVIDED, Work, component_of, peak_bytes, training_work
from gptkit.nn.freezing import freeze
from gptkit.nn.vocabulary import vocabulary_tables
from gptkit.runs.other_models import other_models
from gptkit.runs.planning_devices import Device
from gptkit.runs.planning_result import Memory, TrainingPlan
from gptkit.runs.planning_time import Collective, Compute, Layout, compute_time, ring_collective
from gptkit.runs.spec import ExperimentSpec

__all__ = ["plan_training", "precision_on"]

_BUCKET = 25 << 20
"""Bytes of gradients that DistributedDataParallel exchanges at once."""


def precision_on(spec: ExperimentSpec, device_name: str) -> torch.dtype:
    """Return the dtype of products on a device; all listed ones but CPUs support bf16."""
    from gptkit.training.precision import pick_precision

    if device_name == "cpu":
        return pick_precision(spec.training.precision, torch.device("cpu"))
    return torch.float32 if spec.training.precision == "fp32" else torch.bfloat16


def plan_training(
    spec: ExperimentSpec, vocab_size: int, device: Device, n_devices: int = 1, layout: Layout | None = None
) -> TrainingPlan:
    """Return the plan of a training.

    Args:
        spec: the spec.
        vocab_size: the vocabulary size.
        device: the device of each process.
        n_devices: number of processes, one per device.
        layout: the distribution; None for the smallest one that fits in memory.

    Raises:
        CapacityError: nothing fits; the message names what comes closest.
        GptkitError: the layout is not one of these processes, or cannot divide the model; or a run that the training uses,
            such as a teacher, is not there.
    """
    planner = _Planner(spec, vocab_size, device)
    if layout is not None:
        if layout.count != n_devices:
            raise GptkitError(
                f"{layout} are {layout.count} processes, but there are {n_devices} devices",
                hint="Choose factors whose product is --gpus.",
            )
        planner.require_divisible(layout.tensor)
        plan = planner.plan(layout, proposed=False)
        if plan.memory.total > device.memory:
            raise planner.refusal(plan, n_devices)
        return plan
    fitting = planner.smallest(n_devices)
    if fitting is None:
        raise planner.refusal(planner.plan(planner.layouts(n_devices)[-1], proposed=True), n_devices)
    return fitting


class _Planner:
    def __init__(self, spec: ExperimentSpec, vocab_size: int, device: Device) -> None:
        self.spec, self.vocab_size, self.device = spec, vocab_size, device
        self.precision = precision_on(spec, device.name)
        self.model = GPT(spec.model, vocab_size, device="meta")
        self.flops = 3 * flops_per_token(self.model, spec.window)
        others = other_models(self.model)
        self.others = sum(p.numel() * p.element_size() for model in others for p in model.parameters())
        self.forward_of_others = sum(flops_per_token(model, spec.window) for model in others)
        freeze(self.model, spec.training.freeze)
        self.state = state_bytes(spec.training.optimizer, self.model)
        self.weights = sum(p.numel() * p.element_size() for p in self.model.parameters())
        names = [name for name, module in self.model.named_modules() if component_of(name, module) in DIVIDED]
        self.n_divided = len(names)
        divided = {
            id(p): p.numel() * p.element_size() for name in names for p in self.model.get_submodule(name).parameters()
        }
        self.divided_weights = sum(divided.values())
        self.tables = vocabulary_tables(self.model)
        blocks = [sum(p.numel() * p.element_size() for p in block.parameters()) for block in self.model.blocks]
        self.largest_block, self.outside = max(blocks), max(0, self.weights - sum(blocks))
        self._works: dict[int, Work] = {}

    def work(self, rows: int) -> Work:
        """Return the work of a part of a batch."""
        if rows not in self._works:
            cuda = self.device.name != "cpu"
            self._works[rows] = training_work(self.model, rows, self.spec.window, self.precision, cuda=cuda)
        return self._works[rows]

    def divides_vocabulary(self, tensor: int) -> bool:
        """Return whether the tables of token ids are divided over the processes."""
        return tensor > 1 and self.vocab_size % tensor == 0

    def require_divisible(self, tensor: int) -> None:
        """Raise an error if the heads of an attention cannot be divided over the processes."""
        for layer in self.spec.model.layer_specs():
            n_heads = getattr(layer.attention, "n_heads", None)
            if n_heads and n_heads % tensor:
                raise GptkitError(
                    f"the {n_heads} heads of attention {layer.attention.name!r} cannot be divided over {tensor} processes",
                    hint=f"Choose a divisor of {n_heads} for --tensor.",
                )

    def layouts(self, n_devices: int) -> list[Layout]:
        """Return the layouts, those that divide the model least first."""
        result = []
        for shard in _divisors(n_devices):
            for tensor in _divisors(n_devices // shard):
                if tensor > self.device.per_node:
                    continue
                try:
                    self.require_divisible(tensor)
                except GptkitError:
                    continue
                result.append(Layout(n_devices // (shard * tensor), shard, tensor))
        return sorted(result, key=lambda layout: (layout.shard * layout.tensor, layout.tensor))

    def smallest(self, n_devices: int) -> TrainingPlan | None:
        """Return the plan of the first layout that fits, or None."""
        for layout in self.layouts(n_devices):
            plan = self.plan(layout, proposed=True)
            if plan.memory.total <= self.device.memory:
                return plan
        return None

    def refusal(self, plan: TrainingPlan, n_devices: int) -> CapacityError:
        """Return the error for a plan that does not fit, with the nearest one that does."""
        device = self.device
        message = (
            f"{self.spec.name} needs {human_bytes(plan.memory.total)} per process with {plan.layout}, but "
            f"{device.title} has {human_bytes(device.memory)}"
        )
        nearest = self.smallest(n_devices)
        if nearest is not None:
            return CapacityError(message, hint=f"The nearest layout that fits is {nearest.layout}.")
        training = self.spec.training
        fields = {"recompute": "blocks", "grad_accumulation": max(1, training.batch_size // n_devices)}
        saving = self.spec.replace(training=training.replace(**fields)) if training.batch_size >= n_devices else self.spec
        for count in (n_devices * 2**power for power in range(11)):
            for spec in (self.spec, saving):
                planner = self if spec is self.spec else _Planner(spec, self.vocab_size, device)
                fitting = planner.smallest(count)
                if fitting is not None:
                    settings = (
                        f", training.recompute=blocks, {fitting.rows} windows at once" if spec is not self.spec else ""
                    )
                    hint = f"The nearest plan that fits is {count} devices, {fitting.layout}{settings}."
                    return CapacityError(message, hint=hint)
        return CapacityError(message, hint="Choose a smaller model or window: no number of these devices suffices.")

    def plan(self, layout: Layout, *, proposed: bool) -> TrainingPlan:
        """Return the plan for a layout, whether it fits or not."""
        training, device = self.spec.training, self.device
        sharing = layout.data * layout.shard * training.grad_accumulation
        batch_size = -(-training.batch_size // sharing) * sharing
        rows = batch_size // sharing
        work = self.work(rows)
        memory = self._memory(work, layout, rows)
        part = compute_time(
            work.operations,
            device,
            self.precision,
            compiled=training.compile,
            recompute=training.recompute == "blocks",
            tensor=layout.tensor,
            vocabulary=self.divides_vocabulary(layout.tensor),
        )
        if self.forward_of_others:
            # At the rate of this model's forward pass, whose operations are a third of `flops`.
            more = part.forward * 3 * self.forward_of_others / self.flops
            part = replace(part, forward=part.forward + more, products=part.products + more)
        parts = training.grad_accumulation
        # Clipping reads the gradients twice and writes them; the update reads them and reads and writes weights and state.
        traffic = 4 * memory.gradients + 2 * memory.weights + 2 * memory.optimizer
        update = traffic / (device.bandwidth * device.bandwidth_share)
        collectives = self._collectives(layout, part, parts, rows, memory)
        exposed = sum(each.exposed for each in collectives)
        step = parts * (part.forward + part.backward) + update + exposed
        rate = batch_size * self.spec.window / step
        limits = {
            "compute": parts * part.products,
            "launches": parts * part.launches,
            "network": exposed,
            "memory": parts * (part.forward + part.backward - part.products - part.launches) + update,
        }
        peak = device.bf16 if self.precision == torch.bfloat16 else device.fp32
        return TrainingPlan(
            device=device,
            layout=layout,
            proposed=proposed,
            batch_size=batch_size,
            rows=rows,
            memory=memory,
            forward=parts * part.forward,
            backward=parts * part.backward,
            optimizer=update,
            communication=collectives,
            step_seconds=step,
            tokens_per_second=rate,
            utilization=self.flops * rate / (peak * layout.count),
            bound=max(limits, key=lambda name: limits[name]),
            checkpoint_bytes=self.weights + self.state,
        )

    def _memory(self, work: Work, layout: Layout, rows: int) -> Memory:
        training = self.spec.training
        tables = self.tables if self.divides_vocabulary(layout.tensor) else []
        divided = self.divided_weights + sum(table.numel() * table.element_size() for table in tables)
        kept = self.weights - divided + divided / layout.tensor  # by the processes that shard
        share = kept / self.weights / layout.shard
        weights, optimizer = int(self.weights * share), int(self.state * share)
        of_tables = sum(table.numel() * table.element_size() for table in tables if table.requires_grad)
        divided_gradients = {**work.divided_gradients, -1: work.divided_gradients.get(-1, 0) + of_tables}
        gradients = sum(work.gradients.values()) - sum(divided_gradients.values()) * (1 - 1 / layout.tensor)
        gradients = int(gradients / layout.shard)
        local = replace(
            work,
            gradients={block: size // layout.shard for block, size in work.gradients.items()},
            divided_gradients={block: size // layout.shard for block, size in divided_gradients.items()},
        )
        peak = peak_bytes(local, training.recompute, accumulates=training.grad_accumulation > 1, tensor=layout.tensor)
        communication = 0
        if layout.shard > 1:
            # Two blocks and what is outside of blocks are gathered; the gradients of one block and of these are whole.
            communication = int((3 * self.largest_block + 2 * self.outside) * kept / self.weights)
        if layout.tensor > 1:
            communication += rows * self.spec.window * self.spec.model.d_model * self.precision.itemsize
        tensors = weights + optimizer + peak + communication + self.others
        reserved = self.device.reserved + int((self.device.overhead - 1) * tensors)
        activations = max(0, peak - gradients)
        return Memory(
            weights,
            optimizer,
            gradients,
            activations,
            work.loss_bytes,
            communication,
            self.others,
            reserved,
            tensors + reserved,
        )

    def _collectives(self, layout: Layout, part: Compute, parts: int, rows: int, memory: Memory) -> list[Collective]:
        device = self.device
        result: list[Collective] = []
        whole_gradients = memory.gradients * layout.shard
        units = len(self.model.blocks) + 1
        free_forward, free_backward = parts * part.forward, parts * part.backward
        if layout.tensor > 1:
            size = rows * self.spec.window * self.spec.model.d_model * self.precision.itemsize
            # The vectors of the embedding, and the gradient of the head's input, are summed, too.
            calls = 2 * (self.n_divided + self.divides_vocabulary(layout.tensor)) * parts
            each = ring_collective("activations", "all-reduce", size * calls, layout.tensor, 1, device, calls=calls)
            result.append(replace(each, exposed=each.seconds))
        if layout.shard > 1:
            gathered = memory.weights * layout.shard
            for name, free in (("weights, forward", free_forward), ("weights, backward", free_backward)):
                each = ring_collective(
                    name, "all-gather", gathered * parts, layout.shard, layout.tensor, device, calls=units * parts
                )
                first = each.seconds / (units * parts)  # nothing runs before the first block is gathered
                exposed = max(first, each.seconds - free)
                free_backward -= each.seconds - exposed if name.endswith("backward") else 0.0
                result.append(replace(each, exposed=exposed))
            each = ring_collective(
                "gradients", "reduce-scatter", whole_gradients, layout.shard, layout.tensor, device, calls=units
            )
            exposed = max(each.seconds / units, each.seconds - max(0.0, min(free_backward, part.backward)))
            free_backward -= each.seconds - exposed
            result.append(replace(each, exposed=exposed))
        if layout.data > 1:
            calls = units if layout.shard > 1 else max(1, -(-memory.gradients // _BUCKET))
            stride = layout.shard * layout.tensor
            each = ring_collective("gradients", "all-reduce", memory.gradients, layout.data, stride, device, calls=calls)
            # Only the last part of the batch exchanges gradients, and the last bucket has nothing to hide behind.
            exposed = max(each.seconds / calls, each.seconds - max(0.0, min(free_backward, part.backward)))
            result.append(replace(each, exposed=exposed))
        return result


def _divisors(n: int) -> list[int]:
    return [each for each in range(1, n + 1) if n % each == 0]
