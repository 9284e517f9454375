"""Tables of `gptkit show` about the training section."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gptkit.cli import console

if TYPE_CHECKING:
    from gptkit.model.gpt import GPT
    from gptkit.training.config import TrainingSpec
    from gptkit.training.stage_spec import StageSpec

__all__ = ["print_parameter_groups", "print_stages"]


def print_parameter_groups(training: TrainingSpec, model: GPT) -> None:
    """Print the optimizer's parameter groups, with the number of trained parameters of each; nothing without groups.

    Args:
        training: the training section of the spec.
        model: its model, on any device.
    """
    from gptkit.nn.freezing import frozen_names
    from gptkit.nn.parameters import group_of

    groups = training.optimizer.groups
    if not groups:
        return
    counts: dict[int | None, int] = dict.fromkeys((*range(len(groups)), None), 0)
    frozen = frozen_names(model, training.freeze)
    for name, parameter in model.named_parameters():
        if name not in frozen:
            counts[group_of(name, groups)] += parameter.numel()
    peak = training.optimizer.learning_rate
    rows = [
        [
            ", ".join(group.match),
            f"{counts[index]:,}",
            "as others" if group.rate is None else f"{peak * group.rate:.4g}  ({group.rate:g} of the optimizer's)",
            "as others" if group.weight_decay is None else f"{group.weight_decay:g}",
            "" if group.hidden is None else ("hidden" if group.hidden else "not hidden"),
        ]
        for index, group in enumerate(groups)
    ]
    rows.append(["others", f"{counts[None]:,}", f"{peak:.4g}", "", ""])
    console.heading("Parameter groups")
    columns: list[console.Column] = [
        ("match", {"style": "cyan"}),
        ("parameters", {"justify": "right"}),
        "learning rate",
        "weight decay",
        "",
    ]
    console.stdout().print(console.table(columns, rows))


def print_stages(training: TrainingSpec, window: int) -> None:
    """Print the stages with the steps and tokens of each, and the total; nothing without stages.

    Args:
        training: the training section of the spec.
        window: the number of tokens of a data window.
    """
    from gptkit.training.stage_spec import timeline

    if not training.stages:
        return
    rows, total = [], 0
    for index, stage in enumerate(timeline(training.stages, training.steps), 1):
        batch_size, length = stage.spec.batch_size or training.batch_size, stage.spec.window or window
        n_steps = max(0, min(stage.end, training.steps) - stage.begin)
        tokens = n_steps * batch_size * length
        total += tokens
        steps = f"{stage.begin + 1:,} to {stage.begin + n_steps:,}" if n_steps else "not reached"
        rows.append([str(index), steps, f"{batch_size} × {length:,}", f"{tokens:,}", ", ".join(_changes(stage.spec))])
    rows.append(["", f"{training.steps:,}", "", f"{total:,}", ""])
    console.heading("Stages")
    columns: list[console.Column] = [
        ("", {"style": "cyan"}),
        "steps",
        "batch",
        ("tokens", {"justify": "right"}),
        ("changes", {"style": "dim"}),
    ]
    console.stdout().print(console.table(columns, rows))


def _changes(stage: StageSpec) -> Iterator[str]:
    """Yield what else differs in a stage."""
    from gptkit.reflect.snippets import flow, plain

    if stage.attention_window is not None:
        yield f"attention window {stage.attention_window:,}"
    if stage.rate != 1:
        yield f"{stage.rate:g} × learning rate"
    if stage.schedule is not None:
        yield f"schedule {flow(plain(stage.schedule))}"
    for name, value in stage.losses.items():
        yield f"{name} {value:g}"
    if stage.mixture is not None:
        total = sum(stage.mixture.values())
        yield "mixture " + " + ".join(f"{weight / total:.0%} {name}" for name, weight in stage.mixture.items() if weight)
