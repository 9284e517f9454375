"""Checks of modules in training mode, in which they may compute what evaluation does not show.

Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from gptkit.model.gpt import GPT
from gptkit.testing.check import Checks, differ, expect
from gptkit.testing.subject import VOCAB, Subject, token_ids

__all__ = ["checks"]

checks = Checks()

_CHANGED = (3, 8, 11)


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


@checks.add("starts-near-guessing", "A model that starts far above the loss of uniform guessing trains slowly, or diverges.")
@torch.no_grad()
def starts_near_guessing(subject: Subject) -> None:
    ids_BT, targets_BT = token_ids(2, 32), token_ids(2, 32, seed=1)
    loss, guessing = float(subject.make().eval()(ids_BT, targets_BT).loss), math.log(VOCAB)
    seen = f"the loss of a new model is {loss:.3g}, and that of uniform guessing {guessing:.3g}"
    # A loss that is not finite is reported by other checks.
    expect(not loss >= 2 * guessing, f"{seen}; initialize with smaller values (`initial`)")
