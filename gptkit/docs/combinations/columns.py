"""What is checked for a pair of attention and position, by the checks of the conformance kit and by others of their form.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch

from gptkit.core.errors import GptkitError, SpecError
from gptkit.core.registry import Registry
from gptkit.interop.formats.torch_export.decoder import Decoder
from gptkit.interop.formats.torch_export.tracing import trace
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.position import PositionSpec
from gptkit.kinds.precision import PrecisionSpec
from gptkit.model.gpt import GPT
from gptkit.model.packing import apply_precision, slots
from gptkit.nn.attention.backends.eager import EagerBackend
from gptkit.nn.attention.softmax import SoftmaxAttention
from gptkit.testing import NotApplicableError, checks_for, instances
from gptkit.testing.attention_backend import computes_the_same
from gptkit.testing.check import expect, same, skip
from gptkit.testing.subject import VOCAB, Subject, stirred, stirred_matrices, token_ids

__all__ = ["COLUMNS", "Column", "Pair", "accepted", "measured"]

_CAPACITY, _PROMPT = 24, 7


class Pair(Subject):
    """An attention in its first checked configuration, with one position."""

    def __init__(self, attention: str, position: str, registry: Registry) -> None:
        super().__init__(instances(registry.component("attention", attention), registry)[0], registry)
        self.position = position

    def companions(self) -> list[str]:
        """Return the position."""
        return [self.position]

    def choosing_all(self) -> Pair:
        """Return the pair with all experts of the attention chosen, where it has a router; rounding can choose others."""
        spec: Any = self.spec
        if not hasattr(spec, "router"):
            return self
        result = copy.copy(self)
        Subject.__init__(result, spec.replace(router=spec.router.replace(k=spec.n_experts)), self.registry)
        return result

    @cached_property
    def windowed(self) -> Any:
        """None: the window is checked for the attention by itself."""
        return None


@dataclass(frozen=True)
class Column:
    """One property of a pair.

    Attributes:
        meaning: what holds where it is measured to hold.
        run: the check, as in `gptkit.testing.Check`; None for one that needs several processes.
        costly: takes seconds for each pair, so pages show what is stored.
    """

    meaning: str
    run: Callable[[Pair], None] | None
    costly: bool = False


def _of_kit(name: str) -> Callable[[Pair], None]:
    def run(pair: Pair) -> None:
        check = next(check for check in checks_for("attention", pair.registry) if check.name == name)
        check(pair)

    return run


@torch.no_grad()
def _flex(pair: Pair) -> None:
    if not isinstance(next(iter(pair.model().attentions()), None), SoftmaxAttention):
        skip("no backend computes it: it is not a softmax over keys")
    layout = pair.layout(pair.position, attention_backend="flex")
    model = stirred(GPT(pair.read(layout), VOCAB)).eval()
    eager = copy.deepcopy(model)
    for module in eager.modules():
        if isinstance(module, SoftmaxAttention):
            module.backend, module.backend_name = EagerBackend(), "eager"
    computes_the_same(model, eager, "the backend flex")


@torch.no_grad()
def _quantized(pair: Pair) -> None:
    spec = cast("PrecisionSpec", pair.other("precision", "int8"))
    model, ids_BT = stirred_matrices(pair.choosing_all().make()).eval(), token_ids(2, 20)
    rounded = copy.deepcopy(model)
    for slot in slots(rounded):
        matrix = slot.weight.flatten(0, -2)
        stored = spec.for_matrix(slot.name).quantize(matrix)
        restored = spec.for_matrix(slot.name).dequantize(stored, matrix.shape[-1])
        slot.module.get_parameter(slot.parameter.rpartition(".")[2]).copy_(restored.view(slot.weight.shape))
    apply_precision(model, spec)
    logits, wanted = model(ids_BT).logits, rounded(ids_BT).logits
    allowed = 0.06 if logits.dtype == torch.bfloat16 else 1e-4
    _close(logits, wanted, allowed, "with packed matrices the logits are not those of the matrices they stand for")
    cache = model.new_cache(2)
    pieces = [model(piece, cache=cache).logits for piece in torch.split(ids_BT, [17, 1, 1, 1], dim=1)]
    _close(torch.cat(pieces, 1)[:, -1], logits[:, -1], allowed, "decoding with packed matrices gives other logits")


def _close(actual: torch.Tensor, wanted: torch.Tensor, allowed: float, message: str) -> None:
    error = float((actual.double() - wanted.double()).norm() / wanted.double().norm())
    expect(error <= allowed, f"{message}: they differ by {error:.1%}")


@torch.no_grad()
def _exported(pair: Pair) -> None:
    model = stirred(pair.make()).eval()
    traced = trace(Decoder(copy.deepcopy(model), _CAPACITY), _CAPACITY, None)
    program = traced.program.module()
    ids_BT = token_ids(1, _PROMPT + 3)
    expected = model(ids_BT).logits
    lengths = [_PROMPT, 1, 1, 1] if traced.tokens >= _PROMPT else [1] * (_PROMPT + 3)
    first = 0
    for length in lengths:
        logits = program(ids_BT[:, first : first + length], torch.tensor(first))
        same(logits, expected[:, first : first + length], f"the program gives other logits from token {first}", 1e-4)
        first += length


COLUMNS: Mapping[str, Column] = {
    "causal": Column("No output depends on a later token, with large random weights too.", _of_kit("no-future-leak")),
    "cached": Column(
        "Prompts and single steps with a cache give the logits of the whole text.", _of_kit("cached-equals-full")
    ),
    "packed": Column("Documents in one row give the logits that each gives alone.", _of_kit("documents-keep-apart")),
    "padded": Column("Rows with left padding give the logits that each gives alone.", _of_kit("padding-is-ignored")),
    "flex": Column("The attention backend `flex` gives the logits of `eager`.", _flex),
    "quantized": Column(
        "With matrices in int8, whole texts and decoding give the logits of these matrices (with all experts of an "
        "attention chosen: rounding can choose others).",
        _quantized,
    ),
    "compiled": Column(
        "`torch.compile` (graphs of aot_eager) gives the same logits for two lengths.", _of_kit("compiles"), costly=True
    ),
    "sharded": Column(
        "Two processes that share the weights (FSDP2) have the loss and the gradients of one.", None, costly=True
    ),
    "exported": Column(
        "The program that `torch-export` traces gives the same logits for a prompt and steps.", _exported, costly=True
    ),
}
"""What is measured, in the order of the tables."""


def accepted(registry: Registry) -> Iterator[tuple[str, str]]:
    """Yield the pairs of attention and position whose declarations match, by name."""
    for attention, entry in registry.entries("attention").items():
        accepts = cast("type[AttentionSpec]", entry.cls).accepts
        for position, other in registry.entries("position").items():
            if cast("type[PositionSpec]", other.cls).uses - {"embed"} <= accepts:
                yield attention, position


def measured(registry: Registry, attention: str, position: str, columns: Collection[str]) -> dict[str, str]:
    """Return the outcome of some columns for a pair: ``passed``, ``refused: REASON`` or ``failed: REASON``."""
    pair = Pair(attention, position, registry)
    return {name: _outcome(column.run, pair) for name, column in COLUMNS.items() if name in columns and column.run}


def _outcome(run: Callable[[Pair], None], pair: Pair) -> str:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            run(pair)
        except NotApplicableError as reason:
            return f"refused: {reason}"
        except GptkitError as error:
            message = error.problems[0].message if isinstance(error, SpecError) and error.problems else error.message
            return f"refused: {_reason(message)}"
        except Exception as error:  # whatever a component raises
            return f"failed: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    return "passed"


def _reason(message: str) -> str:
    """Return a message without its remedy and the names of the pair, which the table has."""
    return message.partition("; ")[0].partition(", which attention ")[0]
