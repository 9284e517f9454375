"""Checks of initializers."""

from __future__ import annotations

import torch

from gptkit.testing.check import Checks, expect, same
from gptkit.testing.subject import Subject, token_ids

__all__ = ["checks"]

checks = Checks()

ROLES = ("weight", "output", "embedding")
SHAPES = (torch.Size((8, 12)), torch.Size((12, 8)), torch.Size((16, 16)))


@checks.add(
    "fills", "The model copies the result of an initializer into its weights: it must have their shape, in fp32, finite."
)
def fills(subject: Subject) -> None:
    for role in ROLES:
        for shape in SHAPES:
            given = subject.resolved.fill(role, shape, torch.Generator().manual_seed(0), subject.context)
            what = f"for role {role!r} and shape {tuple(shape)} it gives"
            expect(given.shape == shape, f"{what} shape {tuple(given.shape)}")
            expect(given.dtype == torch.float32, f"{what} {given.dtype}, not fp32")
            expect(given.isfinite().all(), f"{what} numbers that are not finite")


@checks.add("draws-from-the-generator", "Weights depend on the seed only; torch's global random state must not change.")
def draws_from_the_generator(subject: Subject) -> None:
    for role in ROLES:
        torch.manual_seed(1)
        one = subject.resolved.fill(role, SHAPES[0], torch.Generator().manual_seed(0), subject.context)
        state = torch.get_rng_state()
        other = subject.resolved.fill(role, SHAPES[0], torch.Generator().manual_seed(0), subject.context)
        same(other, one, f"for role {role!r}, two generators of one seed give two results")
        untouched = torch.equal(torch.get_rng_state(), state)
        expect(untouched, f"for role {role!r} it draws from torch's global generator")


@checks.add("starts-a-model", "A model must start with a finite loss, near that of uniform guessing, or it does not train.")
def starts_a_model(subject: Subject) -> None:
    loss = subject.make()(token_ids(2, 16), token_ids(2, 16, seed=1)).loss
    expect(
        bool(loss.isfinite()) and float(loss.detach()) < 20, f"a model so started has a loss of {float(loss.detach()):.3g}"
    )
