"""Time of a training step or of decoding by component, from marks on one timeline.

Every mark ends the previous interval, so the parts add up to the whole. In the forward pass, hooks of the modules set the
marks. In the backward pass, hooks of autograd's nodes do: a node belongs to the component that was running when the node was
created (by its sequence number). On CUDA the marks are events on the stream.
"""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import set_checkpoint_early_stop

from gptkit.model.gpt import GPT
from gptkit.model.work import component_of
from gptkit.training.rate import synchronize

__all__ = ["ComponentTime", "Timeline", "component_times", "timed_modules", "timed_step"]

_OTHER = "other"
_EXCLUDED = ("instrumentation", "")
_ACCUMULATION = "torch::autograd::AccumulateGrad"


@dataclass(frozen=True)
class ComponentTime:
    """Time of one component in one phase, summed over layers and parts of the batch.

    Attributes:
        component: embedding, attention, feed-forward, norm, head and loss, residual stream, optimizer, clipping, …
        phase: forward, backward, recomputation (of activations), or step.
        seconds: its time in one step.
        share: its share of the step.
    """

    component: str
    phase: str
    seconds: float
    share: float


class Timeline:
    """Sequence of marks; each begins an interval that lasts until the next mark."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[tuple[Any, tuple[str, str]]] = []

    def mark(self, phase: str, component: str) -> None:
        """Begin an interval of a component."""
        now: Any
        if self._device.type == "cuda":
            now = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            now.record()
        else:
            # On MPS the wait is part of the measurement: the device has no queue of events that could be read here.
            if self._device.type == "mps":
                synchronize(self._device)
            now = time.perf_counter()
        self._marks.append((now, (phase, component)))

    def seconds(self) -> dict[tuple[str, str], float]:
        """Return the seconds by phase and component, without the time of the instrumentation itself."""
        synchronize(self._device)
        total: defaultdict[tuple[str, str], float] = defaultdict(float)
        for (start, label), (end, _) in zip(self._marks, self._marks[1:], strict=False):
            total[label] += start.elapsed_time(end) / 1000 if self._device.type == "cuda" else end - start
        total.pop(_EXCLUDED, None)
        return dict(total)


class _Tracker:
    """Marks of the components that are running, nested as the modules are."""

    def __init__(self, timeline: Timeline, outside: tuple[str, str]) -> None:
        self.timeline = timeline
        self.outside = outside
        self.phase = "forward"
        self._running: list[str] = []
        self._starts: list[int] = []  # sequence numbers of autograd nodes from which a component created them
        self._creators: list[str] = []

    def enter(self, component: str) -> None:
        self._running.append(component)
        self._changed()

    def leave(self) -> None:
        self._running.pop()
        self._changed()

    def reset(self) -> None:
        self._running.clear()
        self._starts.clear()
        self._creators.clear()

    def _changed(self) -> None:
        label = (self.phase, self._running[-1]) if self._running else self.outside
        self.timeline.mark(*label)
        if self.phase == "forward":
            self._starts.append(torch._C._autograd._get_sequence_nr())
            self._creators.append(label[1])

    def creator(self, sequence_number: int) -> str:
        """Return the component that created an autograd node."""
        index = bisect_right(self._starts, sequence_number) - 1
        return self._creators[index] if index >= 0 else _OTHER


@contextlib.contextmanager
def timed_modules(model: GPT, tracker: _Tracker) -> Iterator[None]:
    """Set marks when modules begin and end. Compiled blocks are one component each, as they run as a whole."""
    with contextlib.ExitStack() as stack:
        compiled: list[str] = []
        for name, module in model.named_modules():
            if any(name.startswith(f"{outer}.") for outer in compiled):
                continue
            if module._compiled_call_impl is not None:
                compiled.append(name)
                _time_compiled(module, tracker, stack)
                continue
            component = component_of(name, module)
            if component is None:
                continue
            for handle in (
                module.register_forward_pre_hook(lambda *_, c=component: tracker.enter(c)),
                module.register_forward_hook(lambda *_: tracker.leave()),
            ):
                stack.callback(handle.remove)
        # The loss is computed by a method, which hooks do not see.
        head: Any = model.head
        loss = head.loss

        def timed_loss(*args: Any, **kwargs: Any) -> Any:
            tracker.enter("head and loss")
            result = loss(*args, **kwargs)
            tracker.leave()
            return result

        head.loss = timed_loss
        stack.callback(delattr, head, "loss")
        yield


def _time_compiled(module: nn.Module, tracker: _Tracker, stack: contextlib.ExitStack) -> None:
    call = module._compiled_call_impl
    assert call is not None

    def timed(*args: Any, **kwargs: Any) -> Any:
        tracker.enter("compiled blocks")
        result = call(*args, **kwargs)
        tracker.leave()
        return result

    module._compiled_call_impl = timed
    stack.callback(setattr, module, "_compiled_call_impl", call)


@contextlib.contextmanager
def timed_step(model: GPT, optimizer: torch.optim.Optimizer, timeline: Timeline) -> Iterator[Callable[[], None]]:
    """Set the marks of a training step in the block.

    Yields:
        The function to call when the gradients are complete (`TrainingStep`'s `before_update`).
    """
    tracker = _Tracker(timeline, ("forward", _OTHER))

    def before_forward(*_: Any) -> None:
        tracker.reset()
        tracker.phase, tracker.outside = "forward", ("forward", _OTHER)
        timeline.mark(*tracker.outside)

    def after_forward(module: nn.Module, args: Any, output: Any) -> None:
        timeline.mark(*_EXCLUDED)
        _time_backward(output.loss.grad_fn, tracker)
        tracker.phase = "recomputation"
        timeline.mark("backward", _OTHER)

    handles = [
        model.register_forward_pre_hook(before_forward),
        optimizer.register_step_pre_hook(lambda *_: timeline.mark("step", "optimizer")),
        optimizer.register_step_post_hook(lambda *_: timeline.mark("step", _OTHER)),
    ]
    try:
        # Recomputation runs to a block's end, else its hooks would not be called.
        with timed_modules(model, tracker), set_checkpoint_early_stop(False):
            handles.append(model.register_forward_hook(after_forward))
            timeline.mark("step", "data transfer")
            yield lambda: timeline.mark("step", "clipping")
            timeline.mark(*_EXCLUDED)
    finally:
        for handle in handles:
            handle.remove()


def _time_backward(root: Any, tracker: _Tracker) -> None:
    """Set a mark whenever a node of the graph begins its backward computation, and at the end."""
    timeline = tracker.timeline
    started = False

    def ended() -> None:
        timeline.mark("step", "data transfer")

    def before(label: tuple[str, str]) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            nonlocal started
            if not started:
                started = True
                torch.autograd.Variable._execution_engine.queue_callback(ended)
            # After a recomputation within this node, its own time continues.
            tracker.outside = label
            timeline.mark(*label)

        return hook

    labels: dict[str, Callable[..., None]] = {}
    seen: set[Any] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        # The accumulation of a parameter's gradient counts as the component that computed it.
        if node is None or node in seen or node.name() == _ACCUMULATION:
            continue
        seen.add(node)
        component = tracker.creator(node._sequence_nr())
        if component not in labels:
            labels[component] = before(("backward", component))
        node.register_prehook(labels[component])
        waiting += [following for following, _ in node.next_functions]


def timed_decoding(model: GPT, timeline: Timeline, outside: str) -> contextlib.AbstractContextManager[None]:
    """Set the marks of a model without gradients in the block; the time between its calls counts as `outside`."""
    tracker = _Tracker(timeline, ("decoding", outside))
    tracker.phase = "decoding"
    timeline.mark("decoding", outside)
    return timed_modules(model, tracker)


def component_times(seconds: dict[tuple[str, str], float], whole: float) -> list[ComponentTime]:
    """Return the times of an instrumented step, scaled to `whole`, the seconds of a step without instrumentation."""
    measured = sum(seconds.values())
    by_component: defaultdict[str, float] = defaultdict(float)
    for (_, component), value in seconds.items():
        by_component[component] += value
    order = sorted(seconds, key=lambda label: (-by_component[label[1]], label[1], label[0] != "forward"))
    return [
        ComponentTime(component, phase, whole * seconds[phase, component] / measured, seconds[phase, component] / measured)
        for phase, component in order
    ]
