"""`gptkit plan`: memory, time and communication of a training on a cluster, before it is started."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from gptkit.cli import console
from gptkit.cli.compiler import without_compiler
from gptkit.cli.options import FileOrRun, Json, Overrides, Quiet, chosen
from gptkit.core.activity import working

if TYPE_CHECKING:
    from gptkit.runs.planning_result import TrainingPlan

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def plan(
    target: FileOrRun,
    overrides: Overrides = None,
    gpus: Annotated[int, typer.Option("--gpus", min=1, max=1_000_000, metavar="N", help="Number of devices.")] = 1,
    gpu: Annotated[
        str,
        typer.Option("--gpu", metavar="NAME", help="h100, h200, b200, a100, l40s, 4090, mi300x; cpu: this machine's."),
    ] = "h100",
    data: Annotated[
        int | None, typer.Option("--data", min=1, metavar="N", help="Number of replicas.", show_default=False)
    ] = None,
    shard: Annotated[
        int | None,
        typer.Option("--shard", min=1, metavar="N", help="Processes that a replica is sharded over.", show_default=False),
    ] = None,
    tensor: Annotated[
        int | None,
        typer.Option("--tensor", min=1, metavar="N", help="Processes that each layer is divided over.", show_default=False),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option("--tokens", metavar="N", help="Tokens to train on, such as 10B; by default the spec's steps."),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option("--price", min=0, metavar="P", help="Price of a device for an hour.", show_default=False),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Correct the model by a few steps on this machine, which must be the device.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Plan a training on many devices: memory per process, time of a step, communication, checkpoint size, time and cost.

    Without --data, --shard and --tensor it proposes the smallest division that fits in memory.

    For example: gptkit plan gpt2 --gpus 64 --gpu h100 --tokens 10B
    """
    n_tokens = None if tokens is None else _number(tokens)
    with working(f"planning {target}", quiet=quiet), without_compiler():
        from gptkit.cli.subject import open_subject
        from gptkit.core.errors import GptkitError
        from gptkit.runs.build import countable
        from gptkit.runs.planning import plan_training, precision_on
        from gptkit.runs.planning_devices import find_device
        from gptkit.runs.planning_layout import calibrated, chosen_layout

        subject = open_subject(target, chosen(overrides))
        spec = subject.spec
        vocab_size = subject.vocab_size(fit=True)
        if vocab_size is None:
            raise GptkitError(
                "the vocabulary size depends on a corpus that is unavailable", hint="Set it: -s model.vocab_size=N"
            )
        layout = chosen_layout(spec, gpus, data, shard, tensor)
        device = find_device(gpu, precision_on(spec, gpu))
        with countable(spec, vocab_size):
            factor = 1.0
            if measure:
                device, factor = calibrated(spec, vocab_size, device)
            result = plan_training(spec, vocab_size, device, gpus, layout)
    n_tokens = n_tokens or spec.training.steps * result.batch_size * spec.window
    seconds = n_tokens / result.tokens_per_second
    hours = seconds / 3600 * gpus
    if as_json:
        cost = None if price is None else hours * price
        whole = {"tokens": n_tokens, "seconds": seconds, "device_hours": hours, "cost": cost}
        console.out(json.dumps({**dataclasses.asdict(result), "measured_factor": factor, "training": whole}, indent=2))
        return
    screen = console.stdout()
    screen.print(f"{spec.name}: {gpus:,} × {result.device.title}", style="bold")
    columns: list[console.Column] = [
        ("", {"style": "cyan"}),
        ("", {"no_wrap": True, "justify": "right"}),
        ("", {"style": "dim"}),
    ]
    rows = list(_rows(result, spec.window, spec.training.grad_accumulation))
    if measure:
        rows.append(["measured", f"{factor:.2f}", "measured step / modeled step; the rates are divided by it"])
    rows.append(["training", console.duration(seconds), f"{n_tokens:,} tokens, {hours:,.4g} device hours"])
    if price is not None:
        rows.append(["cost", f"{hours * price:,.0f}", f"at {price:g} for a device and an hour"])
    screen.print(console.table(columns, rows, header=False))
    console.heading("Memory per process")
    screen.print(console.table(columns, list(_memory(result)), header=False))
    if result.communication:
        console.heading("Communication per step and process")
        _print_communication(result)


def _rows(plan: TrainingPlan, window: int, parts: int) -> Iterator[list[str]]:
    from gptkit.model.plan import human_bytes

    yield ["layout", str(plan.layout), "proposed: the smallest division that fits" if plan.proposed else "as given"]
    times = "" if parts == 1 else f", {parts} parts one after the other"
    yield ["batch", f"{plan.batch_size:,} × {window:,}", f"{plan.rows:,} windows at once in each process{times}"]
    split = f"forward {plan.forward * 1e3:,.4g}, backward {plan.backward * 1e3:,.4g}, update {plan.optimizer * 1e3:,.4g}"
    exposed = sum(each.exposed for each in plan.communication)
    yield ["step", f"{plan.step_seconds * 1e3:,.4g} ms", f"{split}, waiting for communication {exposed * 1e3:,.4g}"]
    yield [
        "tokens/s",
        f"{plan.tokens_per_second:,.4g}",
        f"{plan.utilization:.0%} of the devices' peak; limited by {plan.bound}",
    ]
    yield ["checkpoint", human_bytes(plan.checkpoint_bytes), "weights and optimizer state"]


def _memory(plan: TrainingPlan) -> Iterator[list[str]]:
    from gptkit.model.plan import human_bytes

    memory = plan.memory
    loss = f"at the peak, beside the gradients; {human_bytes(memory.loss)} of it for the loss (a chunk of logits)"
    for label, size, note in (
        ("weights", memory.weights, ""),
        ("optimizer", memory.optimizer, ""),
        ("gradients", memory.gradients, ""),
        ("activations", memory.activations, loss),
        ("communication", memory.communication, "gathered shards and buffers"),
        ("other runs", memory.others, "such as a teacher; whole in every process"),
        ("reserved", memory.reserved, "libraries and the allocator"),
        ("peak", memory.total, f"of {human_bytes(plan.device.memory)}"),
    ):
        if size:
            yield [label, human_bytes(size), note]


def _print_communication(plan: TrainingPlan) -> None:
    from gptkit.model.plan import human_bytes

    rows = [
        [
            each.name,
            f"{each.operation} of {each.processes}",
            each.link,
            human_bytes(each.bytes),
            f"{each.seconds * 1e3:,.3g}",
            f"{each.exposed * 1e3:,.3g}",
        ]
        for each in plan.communication
    ]
    titles = ["", "operation", "over", "sent", "ms", "not hidden ms"]
    console.stdout().print(console.table([(title, {"no_wrap": True}) for title in titles], rows))


def _number(text: str) -> int:
    """Return a number with an optional unit: ``10B`` is 10 billion."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d+)?)([KMBT]?)", text.strip().replace("_", ""), re.I)
    value = 0 if match is None else int(float(match[1]) * _UNITS[match[2].upper()])
    if not 0 < value < 10**18:
        raise typer.BadParameter(f"{text!r} is not a number of tokens; write 500M or 10B", param_hint="--tokens")
    return value
