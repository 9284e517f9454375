"""AdamW with cautious weight decay."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["CautiousAdamW"]


class CautiousAdamW(torch.optim.AdamW):
    """AdamW whose weight decay applies only to entries that the update moves towards zero.

    A step needs a copy of the parameters with weight decay.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        groups = [group for group in self.param_groups if group["weight_decay"]]
        decays = [group["weight_decay"] for group in groups]
        before = [[parameter.clone() for parameter in group["params"]] for group in groups]
        for group in groups:
            group["weight_decay"] = 0.0
        try:
            loss = super().step(closure)
        finally:
            for group, decay in zip(groups, decays, strict=True):
                group["weight_decay"] = decay
        for group, copies in zip(groups, before, strict=True):
            for parameter, old in zip(group["params"], copies, strict=True):
                if parameter.grad is not None:
                    towards_zero = (old - parameter) * old >= 0
                    parameter.sub_(torch.where(towards_zero, old, 0), alpha=group["lr"] * group["weight_decay"])
        return loss
