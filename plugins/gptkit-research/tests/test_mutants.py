"""Components with one error each: the conformance kit finds it, and the correct component passes the same check."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Literal

import pytest
import torch
from gptkit_research.rwkv7 import RWKV7, RWKV7Spec
from gptkit_research.token_shift import TokenShift, TokenShiftSpec
from torch import Tensor

from gptkit.core.component import Component
from gptkit.kinds.context import BuildContext
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.forward import Forward
from gptkit.testing import run_checks


def become(made: Any, cls: type) -> Any:
    made.__class__ = cls
    return made


def blind(forward: Forward, **changes: Any) -> Forward:
    """Return a copy of the forward context with changes."""
    other = copy.copy(forward)
    other._memo = {}
    for name, value in changes.items():
        setattr(other, name, value)
    return other


class WrongRWKV7(RWKV7Spec):
    """Base of the time mixings below."""

    n_heads: int | None = 2
    d_head: int = 8
    Runtime: ClassVar[type[RWKV7]]

    def build(self, context: BuildContext) -> Any:
        return become(super().build(context), self.Runtime)


class WritesPadding(WrongRWKV7):
    """Write padding into the state."""

    class Runtime(RWKV7):  # type: ignore[misc]
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            if not self.is_first:
                return super().forward(x_BTE, forward)
            return super().forward(x_BTE, blind(forward, left_padding_B=None))

    name: Literal["writes-padding"] = "writes-padding"  # type: ignore[assignment]
    caught_by: ClassVar[str] = "padding-is-ignored"


class CarriesDocuments(WrongRWKV7):
    """Keep the state of one document for the next one."""

    class Runtime(RWKV7):  # type: ignore[misc]
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, documents_BT=None))

    name: Literal["carries-documents"] = "carries-documents"  # type: ignore[assignment]
    caught_by: ClassVar[str] = "documents-keep-apart"


class ForgetsTheLastVector(WrongRWKV7):
    """Store the state of the recurrence, but not the vector of the last token."""

    class Runtime(RWKV7):  # type: ignore[misc]
        class State(RecurrentState):
            def update(self, n_new: int, *tensors: Tensor) -> None:
                super().update(n_new, torch.zeros_like(tensors[0]), tensors[1])

        def new_state(self, allocation: Any) -> Any:
            return become(super().new_state(allocation), self.State)

    name: Literal["forgets-the-last-vector"] = "forgets-the-last-vector"  # type: ignore[assignment]
    caught_by: ClassVar[str] = "cached-equals-full"


class WrongTokenShift(TokenShiftSpec):
    """Base of the blocks below."""

    Runtime: ClassVar[type[TokenShift]]

    def build(self, context: BuildContext) -> Any:
        return become(super().build(context), self.Runtime)


class ShiftsPadding(WrongTokenShift):
    """Mix padding into the first token."""

    class Runtime(TokenShift):  # type: ignore[misc]
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, left_padding_B=None))

    name: Literal["shifts-padding"] = "shifts-padding"  # type: ignore[assignment]
    caught_by: ClassVar[str] = "padding-is-ignored"


class ShiftsAcrossDocuments(WrongTokenShift):
    """Mix the last token of one document into the first of the next."""

    class Runtime(TokenShift):  # type: ignore[misc]
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, documents_BT=None))

    name: Literal["shifts-across-documents"] = "shifts-across-documents"  # type: ignore[assignment]
    caught_by: ClassVar[str] = "documents-keep-apart"


class HasNoState(WrongTokenShift):
    """Decode every token as if it were the first."""

    class Runtime(TokenShift):  # type: ignore[misc]
        class State(RecurrentState):
            def update(self, n_new: int, *tensors: Tensor) -> None:
                super().update(n_new, *(torch.zeros_like(tensor) for tensor in tensors))

        def new_state(self, allocation: Any) -> Any:
            return become(super().new_state(allocation), self.State)

    name: Literal["has-no-state"] = "has-no-state"  # type: ignore[assignment]
    caught_by: ClassVar[str] = "cached-equals-full"


MUTANTS: list[tuple[type[Component], type[Component]]] = [
    *((cls, RWKV7Spec) for cls in (WritesPadding, CarriesDocuments, ForgetsTheLastVector)),
    *((cls, TokenShiftSpec) for cls in (ShiftsPadding, ShiftsAcrossDocuments, HasNoState)),
]


@pytest.mark.parametrize(("wrong", "right"), MUTANTS, ids=lambda cls: cls.__name__)
def test_mutant_is_caught(wrong: Any, right: Any) -> None:
    for cls, is_right in ((wrong, False), (right, True)):
        fields = {"n_heads": 2, "d_head": 8} if right is RWKV7Spec else {}
        (result,) = run_checks(cls(name=cls.component_name(), **fields), only=[wrong.caught_by])
        assert result.ok == is_right, result.message
