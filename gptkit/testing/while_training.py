"""Checks of modules in training mode, in which they may compute what evaluation does not show.

Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from gptkit.model.gpt import GPT
from gptkit.nn.after_step import after_step
from gptkit.nn.head import IGNORED
from gptkit.testing.check import Checks, differ, expect, same
from gptkit.testing.subject import VOCAB, Subject, token_ids

__all__ = ["checks"]

checks = Checks()

_CHANGED = (3, 8, 11)
_PADDING = -1
"""The document of padding in packed rows."""


@checks.add(
    "training-sees-no-future",
    "Statistics over a row or a batch, which only training uses, let a model attend to its targets.",
)
@torch.no_grad()
def training_sees_no_future(subject: Subject) -> None:
    model = copy.deepcopy(subject.model())
    if _leak(model.eval()) is not None:
        return  # reported by the checks of evaluation
    leak = _leak(model.train())
    expect(leak is None, f"in training, changing the tokens at {leak} changes the output before them")


def _leak(model: GPT) -> int | None:
    """Return the first place at which changing the tokens of all rows changes an output before it; None without one."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def logits(ids_BT: Tensor) -> Tensor:
        model.load_state_dict(state)  # buffers change in training
        torch.manual_seed(5)  # and dropout is the same
        result: Tensor = model(ids_BT).logits
        return result

    ids_BT = token_ids(2, 12)
    plain = logits(ids_BT)
    for at in _CHANGED:
        changed_BT = ids_BT.clone()
        changed_BT[:, at] = (changed_BT[:, at] + 1) % VOCAB
        if bool(differ(logits(changed_BT), plain)[:, :at].any()):
            return at
    return None


@checks.add(
    "losses-exclude-padding",
    "Packed rows end with padding, or consist of it; auxiliary losses that count it depend on the packing.",
)
def losses_exclude_padding(subject: Subject) -> None:
    model = copy.deepcopy(subject.model()).train()
    ids_BT, documents_BT = token_ids(2, 12), torch.zeros(2, 12, dtype=torch.long)
    documents_BT[:, 7:] = _PADDING
    first = _auxiliary(model, ids_BT, documents_BT)
    if not first:
        return
    changed_BT = ids_BT.clone()
    changed_BT[:, 7:] = (changed_BT[:, 7:] + 3) % VOCAB
    remedy = "count the tokens where forward.counted_BT is True, as forward.counted_mean does"
    for name, value in _auxiliary(model, changed_BT, documents_BT).items():
        same(value, first[name], f"the auxiliary loss {name!r} depends on the padding of packed rows; {remedy}")
    for name, value in _auxiliary(model, ids_BT, torch.full_like(documents_BT, _PADDING)).items():
        finite = bool(value.isfinite())
        expect(finite, f"of rows that are padding only, the auxiliary loss {name!r} is {value.tolist()}; {remedy}")


def _auxiliary(model: GPT, ids_BT: Tensor, documents_BT: Tensor) -> dict[str, Tensor]:
    """Return the auxiliary losses of a forward pass in training, without the main one."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    targets_BT = ids_BT.roll(-1, 1).masked_fill(documents_BT.roll(-1, 1) == _PADDING, IGNORED)
    targets_BT[:, -1] = IGNORED
    torch.manual_seed(5)  # dropout is the same in each call
    losses = model(ids_BT, targets_BT, documents_BT=documents_BT).losses
    after_step(model)  # counts of this call
    model.load_state_dict(state)
    return {name: value.detach() for name, value in losses.items()}


@checks.add(
    "resumes-after-steps",
    "A checkpoint holds the state dict only, so what a training step changes must be in it (persistent buffers).",
)
def resumes_after_steps(subject: Subject) -> None:
    ids_BT = token_ids(3, 24)
    trained = copy.deepcopy(subject.model())
    with torch.no_grad():
        trained.eval()(ids_BT)  # what it computes from its weights, it must compute again after they change
    after_step(trained)  # counts of a step that an earlier check began
    before = {name: buffer.clone() for name, buffer in trained.named_buffers()}
    for step in range(2):
        _train(trained, step)
    stored = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    lost = [
        name
        for name, buffer in trained.named_buffers()
        if name not in stored
        and name in before
        and before[name].shape == buffer.shape
        and differ(buffer, before[name]).any()
    ]
    expect(
        not lost, f"training changes {', '.join(lost)}, which the state dict does not contain; make the buffer persistent"
    )
    resumed = subject.make(seed=5).double()
    with torch.no_grad():
        resumed.eval()(ids_BT)
    resumed.load_state_dict(stored, strict=False)
    remedy = (
        "keep what training changes in parameters or persistent buffers, and compute what follows from them in each call"
    )
    with torch.no_grad():
        expected, actual = trained.eval()(ids_BT).logits, resumed.eval()(ids_BT).logits
    same(actual, expected, f"after two training steps, loaded into a new model, it computes other logits; {remedy}")
    after = f"a training that is resumed after two steps has another loss in the third; {remedy}"
    same(_train(resumed, 2), _train(trained, 2), after)


def _train(model: GPT, step: int) -> Tensor:
    """Take a training step, and return the loss."""
    torch.manual_seed(step)
    loss = model.train()(token_ids(3, 24, seed=step), token_ids(3, 24, seed=step + 10)).loss
    assert loss is not None
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.01 * parameter.grad.nan_to_num())
    model.zero_grad()
    after_step(model)
    value: Tensor = loss.detach()
    return value


@checks.add("starts-near-guessing", "A model that starts far above the loss of uniform guessing trains slowly, or diverges.")
@torch.no_grad()
def starts_near_guessing(subject: Subject) -> None:
    ids_BT, targets_BT = token_ids(2, 32), token_ids(2, 32, seed=1)
    loss, guessing = float(subject.make().eval()(ids_BT, targets_BT).loss), math.log(VOCAB)
    seen = f"the loss of a new model is {loss:.3g}, and that of uniform guessing {guessing:.3g}"
    # A loss that is not finite is reported by other checks.
    expect(not loss >= 2 * guessing, f"{seen}; initialize with smaller values (`initial`)")
