"""Modules of plugins are copied whatever the style of their source: annotations, argument names, statements on a line."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from gptkit.testing import run_checks

_SPECS = '''
from typing import ClassVar, Literal
import torch
from torch import nn
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.kinds.router import RouterSpec
from gptkit.nn.feedforward import FeedForward
from gptkit.nn.forward import Forward
from gptkit.nn.router import Router


class Plain(FeedForward):
    def __init__(self, context):
        super().__init__()
        self.up, self.down = context.linear(context.d_model, 24), context.linear(12, context.d_model)

    {method}


class PlainSpec(FeedForwardSpec):
    """Feed-forward in the style of its author."""

    name: Literal["plain"] = "plain"

    def build(self, context):
        return Plain(context)


class Gate(Router):
    def __init__(self, context, n_experts):
        super().__init__()
        self.gate = nn.Linear(context.d_model, n_experts, bias=False)

    def forward(self, x, _, valid=None):
        weights, experts = self.gate(x).softmax(-1).topk(2, -1); return experts, weights


class GateSpec(RouterSpec):
    """Router in the style of its author."""

    name: Literal["gate"] = "gate"

    def build(self, context, *, n_experts):
        return Gate(context, n_experts)
'''
_STYLES = {
    "no annotations": """def forward(self, x, forward):
        a, b = self.up(x).chunk(2, -1)
        return self.down(a * b)""",
    "one line": "def forward(self, x, forward): return self.down(self.up(x)[..., :12])",
    "another name": """def forward(self, x, ctx: Forward):
        a, b = self.up(x).chunk(2, -1)
        return self.down(a * b) * self.scale(ctx)

    def scale(self, state: "Forward"):
        return (state.ids_BT[..., None] % 3 + 1) / 2""",
    "another name, no annotation": """def forward(self, x, ctx=None):
        return self.down(self.up(x)[..., :12] * (1 + ctx.ids_BT[..., None] % 3))""",
    "a comment after the header": """def forward(self, x, forward: Forward):  # of every token
        if x.dim() == 0:
            return x
        a, b = self.up(x).chunk(2, -1)
        return self.down(a * b)""",
    "two statements on a line": """def forward(self, x, forward):
        a, b = self.up(x).chunk(2, -1); y = a * b
        if x.dim() == 0: return x
        return self.down(y)""",
    "a long comprehension": """def forward(self, x, forward):
        pieces = self.up(x).split(6, -1)
        return self.down(torch.cat([piece * (pieces[i + 2].sigmoid() if i < 2 else 1.0) for i, piece in \
enumerate(pieces) if i < 2], dim=-1))""",
}


def _specs(directory: Path, method: str) -> Any:
    file = directory / "plain_plugin.py"
    file.write_text(_SPECS.replace("{method}", method), encoding="utf-8")
    source = importlib.util.spec_from_file_location("plain_plugin", file)
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    return module


@pytest.mark.parametrize("style", _STYLES)
def test_written_feedforward_equals_the_built_one_in_every_style(tmp_path: Path, style: str) -> None:
    spec = _specs(tmp_path, _STYLES[style]).PlainSpec()
    (result,) = run_checks(spec, only=["written-equals-built"])
    assert result.outcome == "passed", result.message


def test_what_the_file_does_not_have_is_refused_under_every_name(tmp_path: Path) -> None:
    method = "def forward(self, x, ctx): return self.down(self.up(x)[..., :12] if ctx.prefix_B is None else x)"
    (result,) = run_checks(_specs(tmp_path, method).PlainSpec(), only=["written-equals-built"])
    assert result.outcome == "skipped"
    assert "uses forward.prefix_B, which the file does not have" in result.message


def test_written_router_equals_the_built_one_without_annotations(tmp_path: Path) -> None:
    (result,) = run_checks(_specs(tmp_path, _STYLES["one line"]).GateSpec(), only=["written-equals-built"])
    assert result.outcome == "passed", result.message
