"""Values of a wrong type or shape that parts of a model from plugins return: the first command names the component."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from torch import nn

from gptkit.cli import compare
from gptkit.components.block.pre_norm import PreNormSpec
from gptkit.components.embedding.token import TokenEmbeddingSpec
from gptkit.components.head.linear import LinearHeadSpec
from gptkit.core.registry import Registry
from gptkit.core.registry.plugin import installed
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.kinds.norm import NormSpec
from gptkit.nn.feedforward import FeedForward
from tests.support import fake_plugins
from tests.support.command_line import Call

Change = Callable[[Any], Any]

WRONG: dict[str, Change] = {
    "None": lambda value: None,
    "a value of type float": lambda value: value.sum().item(),
    "a tuple of 2 values": lambda value: (value, value),
    "a (2,) tensor": lambda value: torch.stack((value.sum(), value.sum())),
}
wrong: Change = WRONG["None"]


def changed(module: nn.Module, method: str) -> nn.Module:
    """Change what a method of a module returns."""
    own: Any = getattr(module, method)
    setattr(module, method, lambda *args, **kwargs: wrong(own(*args, **kwargs)))
    return module


class WrongEmbeddingSpec(TokenEmbeddingSpec):
    """Embedding."""

    name: Literal["wrong-embedding"] = "wrong-embedding"  # type: ignore[assignment]

    def build(self, context: Any) -> Any:
        return changed(super().build(context), "forward")


class WrongBlockSpec(PreNormSpec):
    """Block."""

    name: Literal["wrong-block"] = "wrong-block"  # type: ignore[assignment]

    def build(self, context: Any) -> Any:
        return changed(super().build(context), "forward")


class WrongLossSpec(LinearHeadSpec):
    """Head whose loss is wrong."""

    name: Literal["wrong-loss"] = "wrong-loss"  # type: ignore[assignment]

    def build(self, context: Any, *, embedding: Any) -> Any:
        return changed(super().build(context, embedding=embedding), "loss")


class WrongHeadSpec(LinearHeadSpec):
    """Head whose logits are wrong."""

    name: Literal["wrong-head"] = "wrong-head"  # type: ignore[assignment]

    def build(self, context: Any, *, embedding: Any) -> Any:
        return changed(super().build(context, embedding=embedding), "forward")


class WrongNormSpec(NormSpec):
    """Norm."""

    name: Literal["wrong-norm"] = "wrong-norm"

    def build(self, context: Any, *, dim: int) -> Any:
        return changed(nn.Identity(), "forward")


class Unchanged(FeedForward):
    """Feed-forward that returns its input."""

    def forward(self, x_BTE: Any, forward: Any) -> Any:
        return x_BTE


class WrongFeedForwardSpec(FeedForwardSpec):
    """Feed-forward."""

    name: Literal["wrong-feedforward"] = "wrong-feedforward"

    def build(self, context: Any) -> Any:
        return changed(Unchanged(), "forward")


SPECS = [WrongEmbeddingSpec, WrongBlockSpec, WrongLossSpec, WrongHeadSpec, WrongNormSpec, WrongFeedForwardSpec]


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = Registry([fake_plugins.plugin("gptkit-wrong", SPECS), *installed()])
    monkeypatch.setattr("gptkit.core.registry.lookup._default", plugins)


METHODS = [
    ("embedding", "wrong-embedding", "forward"),
    ("block", "wrong-block", "forward"),
    ("head", "wrong-loss", "loss"),
    ("head", "wrong-head", "forward"),
    ("norm", "wrong-norm", "forward"),
    ("feedforward", "wrong-feedforward", "forward"),
]
CASES = [
    (*each, returned)
    for each in METHODS
    for returned in WRONG
    if (each[0], returned) != ("feedforward", "a value of type float")  # it is broadcast; the kit reports it
]


@pytest.mark.parametrize(("kind", "name", "method", "returned"), CASES)
def test_wrong_output_names_component_method_and_value(
    call: Call, project: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str, method: str, returned: str
) -> None:
    monkeypatch.setitem(globals(), "wrong", WRONG[returned])
    output = call("train", "mini.yaml", "run", "--set", f"model.{kind}={name}", code=2).stderr
    assert f"error: {kind} '{name}' of gptkit-wrong==1.0: " in output
    assert f".{method} returned {returned} for an input of (2, 12" in output
    assert "; return " in output
    assert "gptkit plugin check gptkit-wrong" in output
    assert "internal error" not in output


def test_show_of_activations_names_the_component(call: Call, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "wrong", lambda value: value[..., :-1])
    output = call("show", "mini.yaml", "--activations", "--set", "model.norm=wrong-norm", code=2).stderr
    assert "norm 'wrong-norm' of gptkit-wrong==1.0: Identity.forward returned a (2, 12, 31) tensor" in output


def test_missing_tokens_name_the_blocks(call: Call, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "wrong", lambda value: value[:, :-1])
    output = call("train", "mini.yaml", "run", "--set", "model.block=wrong-block", code=2).stderr
    assert "the blocks (gptkit.components.block.modules.pre_norm.PreNorm" in output
    assert "returned" in output


def test_other_errors_of_a_plugin_without_wrong_outputs_remain(
    call: Call, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(value: Any) -> Any:
        if value.shape[0] != 2 or value.shape[1] != 12:  # not in the tiny model of the check
            raise RuntimeError("of another cause")
        return value

    monkeypatch.setitem(globals(), "wrong", fail)
    output = call("train", "mini.yaml", "run", "--set", "model.norm=wrong-norm", code=1).stderr
    assert "RuntimeError: of another cause" in output


def test_comparison_names_the_component_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "wrong", WRONG["a value of type float"])
    layout = {"d_model": 16, "n_layers": 1, "attention": {"n_heads": 2}, "head": "wrong-loss"}
    sound = {**layout, "head": "linear"}
    gone = {**layout, "head": "not-installed"}
    variants: Any = [SimpleNamespace(spec={"model": model}) for model in (layout, gone, sound, layout)]
    compare._report_components(variants)
    output = " ".join(capsys.readouterr().err.split())
    assert output.count("head 'wrong-loss' of gptkit-wrong==1.0: LinearHead.loss returned a value of type float") == 1
    assert output.count("gptkit plugin check gptkit-wrong") == output.count("warning") == 1
