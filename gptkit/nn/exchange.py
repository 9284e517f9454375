"""Values that the modules of a model hand to one another within one forward pass.

Four channels, each with one rule, so that a block that is recomputed, compiled or sharded gives the same result:

- *published* values are declared and written once: ``publish`` and ``read``;
- *carried* values evolve through the depth: what a block carries is visible to the next block only;
- *auxiliary losses* are added, and the model adds their sum to its own loss;
- *attention weights* are kept on request, one tensor per call of an attention: ``keep_weights``.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from gptkit.core.errors import GptkitError, StateError

__all__ = ["Exchange", "Given", "check_declarations"]


@dataclass
class Given:
    """What the modules that ran on a fork handed out; `Exchange.take` passes it on.

    Attributes:
        published: new published values, by key.
        carried: values for the next block, by key.
        losses: auxiliary losses, by name.
        memo: values that layers share and no gradient flows through: masks, tables.
        weights: attention weights by (layer, call), where they are kept.
    """

    published: dict[Hashable, Any] = field(default_factory=dict)
    carried: dict[Hashable, Any] = field(default_factory=dict)
    losses: dict[str, Tensor] = field(default_factory=dict)
    memo: dict[Hashable, Any] = field(default_factory=dict)
    weights: dict[tuple[int, int], Tensor] = field(default_factory=dict)


class Exchange:
    """The part of the forward context through which modules hand values to later ones.

    A module declares what it publishes and reads in two attributes, tuples of keys: ``publishes`` and ``reads``. The model
    checks the declarations when it is assembled.

    Attributes:
        losses: auxiliary losses by name, each the sum of what the layers added.
        weights: attention weights (B, H, T, S) by layer and call, as `keep_weights` stored them; None unless they were
            requested.

    Args:
        keep_weights: keep the attention weights.
    """

    def __init__(self, *, keep_weights: bool = False) -> None:
        self.losses: dict[str, Tensor] = {}
        self.weights: dict[tuple[int, int], Tensor] | None = {} if keep_weights else None
        self._published: dict[Hashable, Any] = {}
        self._carried: dict[Hashable, Any] = {}
        self._given = Given()

    def publish(self, module: nn.Module, key: Hashable, value: Any) -> None:
        """Make a value available to later modules.

        Args:
            module: the module that writes; its attribute ``publishes`` declares the key.
            key: names the value, by convention a tuple that begins with the component's name.

        Raises:
            StateError: the key is not declared, or already written in this forward pass.
        """
        _check_declared(module, "publishes", key)
        if key in self._published:
            raise StateError(
                f"{type(module).__name__} publishes {key!r} a second time in one forward pass",
                hint="Use one key per layer, or Forward.carry for a value that changes from block to block.",
            )
        self._published[key] = value
        self._given.published[key] = value

    def read(self, module: nn.Module, key: Hashable) -> Any:
        """A value that an earlier module published.

        Args:
            module: the module that reads; its attribute ``reads`` declares the key.

        Raises:
            StateError: the key is not declared, or no earlier module has published it.
        """
        _check_declared(module, "reads", key)
        if key not in self._published:
            raise StateError(
                f"{type(module).__name__} reads {key!r}, which no earlier module published in this forward pass",
                hint="Let an earlier layer publish it before this one runs.",
            )
        return self._published[key]

    def carry(self, key: Hashable, value: Any) -> None:
        """Hand a value to the next block, and to no other; that block carries its own further.

        Raises:
            StateError: the block carries the key a second time.
        """
        if key in self._given.carried:
            raise StateError(
                f"a block carries {key!r} twice", hint="Carry it once, at the end of the block, or use two keys."
            )
        self._given.carried[key] = value

    def carried(self, key: Hashable) -> Any | None:
        """What the previous block carried under the key; None where it carried nothing."""
        return self._carried.get(key)

    def next_block(self) -> None:
        """Make the values carried by the last block visible to the next one. Called between blocks."""
        self._carried, self._given.carried = self._given.carried, {}

    def add_loss(self, name: str, value: Tensor) -> None:
        """Add an auxiliary loss, a weighted scalar. Losses of one name, from several layers, are summed."""
        for losses in (self.losses, self._given.losses):
            losses[name] = losses[name] + value if name in losses else value

    def keep_weights(self, layer: int, weights_BHTS: Tensor) -> None:
        """Store the attention weights of one call under ``(layer, call)``, where they were requested; else do nothing.

        `call` numbers the calls within the layer, from 0, in the order of execution: those of one attention in a looped
        block, and those of several attentions in one layer.

        Args:
            layer: index of the attention's layer, as in its build context; a head's is the number of layers.
            weights_BHTS: the weights as used: (B, H, T, S), finite, zero where masked.
        """
        if self.weights is None:
            return
        call = sum(kept_layer == layer for kept_layer, _ in self.weights)
        self.weights[layer, call] = weights_BHTS
        self._given.weights[layer, call] = weights_BHTS

    def given(self) -> Given:
        """What modules handed out since this context was forked."""
        return self._given

    def take(self, given: Given) -> None:
        """Pass on what modules handed out on a fork of this context."""
        self._published.update(given.published)
        self._given.published.update(given.published)
        self._given.carried.update(given.carried)
        for name, value in given.losses.items():
            self.add_loss(name, value)
        if self.weights is not None:
            self.weights.update(given.weights)
            self._given.weights.update(given.weights)

    def _fork(self, twin: Exchange) -> None:
        twin.losses = {}
        # A fork counts calls on from those before it, so its keys stay distinct.
        twin.weights = None if self.weights is None else dict(self.weights)
        twin._published = dict(self._published)
        twin._carried = dict(self._carried)
        twin._given = Given()


def check_declarations(model: nn.Module) -> None:
    """Check that every key a module declares to read is published by a module before it, in the order of assembly.

    Raises:
        GptkitError: a key is read that no module before publishes, or published by two modules.
    """
    publishers: dict[Hashable, str] = {}
    for name, module in model.named_modules():
        for key in getattr(module, "reads", ()):
            if key not in publishers:
                raise GptkitError(
                    f"{name} ({type(module).__name__}) reads {key!r}, which no module before it publishes",
                    hint="Place a layer that publishes it before this one.",
                )
        for key in getattr(module, "publishes", ()):
            if key in publishers:
                raise GptkitError(
                    f"{name} and {publishers[key]} both publish {key!r}; a published value is written once",
                    hint="Give each layer a key of its own.",
                )
            publishers[key] = name


def _check_declared(module: nn.Module, attribute: str, key: Hashable) -> None:
    if key not in getattr(module, attribute, ()):
        raise StateError(
            f"{type(module).__name__} does not declare {key!r} in its attribute {attribute!r}",
            hint=f"Set self.{attribute} = ({key!r},) when the module is built.",
        )
