"""Values that the modules of a model pass to one another within one forward pass.

Each of four channels has one rule, so that a block that is recomputed, compiled or sharded computes the same result:

- *published* values are declared and written once: ``publish`` and ``read``;
- *carried* values change from block to block: they are declared, and accompany the vectors that a block returns. Only the
  block whose input is these very vectors receives them;
- *auxiliary losses* are added up, and the model adds their sum to its own loss;
- *attention weights* are stored on request, one tensor per call of an attention: ``keep_weights``.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from gptkit.core.errors import GptkitError, StateError

__all__ = ["Effects", "Exchange", "MissingPublisherError", "check_declarations"]


@dataclass
class Effects:
    """The effects of a block on the context that it ran on, a fork; `Exchange.apply` repeats them on the original.

    Attributes:
        published: new published values, by key.
        carried: the values that accompany the vectors that the block returned, by key.
        losses: auxiliary losses, by name.
        memo: values that layers share and that no gradient flows through: masks, tables.
        weights: attention weights by (layer, call), if they were requested.
    """

    published: dict[Hashable, Any] = field(default_factory=dict)
    carried: dict[Hashable, Any] = field(default_factory=dict)
    losses: dict[str, Tensor] = field(default_factory=dict)
    memo: dict[Hashable, Any] = field(default_factory=dict)
    weights: dict[tuple[int, int], Tensor] = field(default_factory=dict)


@dataclass
class BlockCall:
    """A running call of a block: the values that accompany its input, and those that it carries."""

    received: dict[Hashable, Any]
    carried: dict[Hashable, Any] = field(default_factory=dict)


class Exchange:
    """The part of the forward context through which modules pass values to later ones.

    A module declares what it publishes, reads and carries in three attributes, tuples of keys: ``publishes``, ``reads`` and
    ``carries``. The model checks the declarations when it is assembled.

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
        self._block: BlockCall | None = None
        self._accompanied: tuple[Tensor | None, dict[Hashable, Any]] = (None, {})
        """The vectors that a block last returned (or the input of a running one), and the values that accompany them."""
        self._effects = Effects()

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
        self._effects.published[key] = value

    def published(self, key: Hashable) -> bool:
        """Whether a module has published a value of this name in this forward pass."""
        return key in self._published

    def read(self, module: nn.Module, key: Hashable) -> Any:
        """Return a value that an earlier module published.

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

    @property
    def in_block(self) -> bool:
        """Whether a block is running, so that values can accompany what it returns."""
        return self._block is not None

    def carry(self, module: nn.Module, key: Hashable, value: Any) -> None:
        """Let a value accompany the vectors that the running block returns.

        Args:
            module: the block, or a module in it; its attribute ``carries`` declares the key.
            key: names the value, by convention a tuple that begins with the component's name.

        Raises:
            StateError: the key is not declared, is carried twice by one block, or no block is running.
        """
        _check_declared(module, "carries", key)
        if self._block is None:
            raise StateError(
                f"{type(module).__name__} carries {key!r} outside of a block",
                hint="Values accompany what a block returns; publish the value instead.",
            )
        if key in self._block.carried:
            raise StateError(
                f"a block carries {key!r} twice", hint="Carry it once, at the end of the block, or use two keys."
            )
        self._block.carried[key] = value

    def carried(self, module: nn.Module, key: Hashable) -> Any | None:
        """Return the value that accompanies the running block's input.

        Args:
            module: the module that reads; its attribute ``carries`` declares the key.

        Returns:
            The value; None if the input was not returned by a block, or that block did not carry the key.

        Raises:
            StateError: the key is not declared.
        """
        _check_declared(module, "carries", key)
        return None if self._block is None else self._block.received.get(key)

    def begin_block(self, x_BTE: Tensor) -> BlockCall | None:
        """Start the call of a block with the input `x_BTE`; `Block` calls it.

        Returns:
            The call of the block around this one, for `end_block`.
        """
        outer, (vectors, values) = self._block, self._accompanied
        self._block = BlockCall(values if vectors is x_BTE else {})
        self._accompanied = (x_BTE, self._block.received)
        return outer

    def end_block(self, outer: BlockCall | None, y_BTE: Tensor) -> None:
        """End the call of a block that returned `y_BTE`."""
        self._accompanied = (y_BTE, self._carried_with(y_BTE))
        self._block = outer

    def _carried_with(self, y_BTE: Tensor) -> dict[Hashable, Any]:
        """Return what the running block carries, or what a nested block carried if this one only returns its vectors."""
        assert self._block is not None
        vectors, values = self._accompanied
        return self._block.carried or (values if vectors is y_BTE else {})

    def add_loss(self, name: str, value: Tensor) -> None:
        """Add an auxiliary loss, a weighted scalar, in training only. Losses of one name are summed over layers."""
        for losses in (self.losses, self._effects.losses):
            losses[name] = losses[name] + value if name in losses else value

    def keep_weights(self, layer: int, weights_BHTS: Tensor) -> None:
        """Store the attention weights of one call under ``(layer, call)`` if they were requested; else do nothing.

        `call` numbers the calls within the layer, from 0, in the order of execution: those of one attention in a looped
        block, and those of several attentions in one layer.

        Args:
            layer: index of the attention's layer, as in its build context; for a head, the number of layers.
            weights_BHTS: the weights as used: (B, H, T, S), finite, zero where masked.
        """
        if self.weights is None:
            return
        call = sum(kept_layer == layer for kept_layer, _ in self.weights)
        self.weights[layer, call] = weights_BHTS
        self._effects.weights[layer, call] = weights_BHTS

    def effects(self, y_BTE: Tensor) -> Effects:
        """Return the effects of a block that ran on this fork and returned `y_BTE`."""
        self._effects.carried = self._carried_with(y_BTE)
        return self._effects

    def apply(self, effects: Effects) -> None:
        """Repeat the effects of a block that ran on a fork of this context."""
        self._published.update(effects.published)
        self._effects.published.update(effects.published)
        if self._block is not None:
            self._block.carried.update(effects.carried)
        for name, value in effects.losses.items():
            self.add_loss(name, value)
        if self.weights is not None:
            self.weights.update(effects.weights)
            self._effects.weights.update(effects.weights)

    def _try_into(self, trial: Exchange) -> None:
        trial.losses = dict(self.losses)
        trial.weights = None if self.weights is None else dict(self.weights)
        trial._published = dict(self._published)
        trial._effects = Effects()

    def _fork_into(self, fork: Exchange, x_BTE: Tensor) -> None:
        fork.losses = {}
        # The calls of the fork are counted after the previous ones, so that their keys are distinct.
        fork.weights = None if self.weights is None else dict(self.weights)
        fork._published = dict(self._published)
        received = {} if self._block is None else self._block.received
        fork._block = BlockCall(received)
        fork._accompanied = (x_BTE, received)
        fork._effects = Effects()


class MissingPublisherError(GptkitError):
    """No earlier module publishes a value that a module declares to read."""


def check_declarations(model: nn.Module) -> None:
    """Check that every key that a module declares to read is published by an earlier one, in the order of assembly.

    Raises:
        MissingPublisherError: no earlier module publishes a key that is read.
        GptkitError: two modules publish a key, or a declaration is not a tuple.
    """
    publishers: dict[Hashable, str] = {}
    for name, module in model.named_modules():
        for attribute in ("publishes", "reads", "carries"):
            if not isinstance(getattr(module, attribute, ()), tuple):
                raise GptkitError(
                    f"{name} ({type(module).__name__}): the attribute {attribute!r} is not a tuple of keys",
                    hint=f"Set self.{attribute} = (key,) when the module is built.",
                )
        for key in getattr(module, "reads", ()):
            if key not in publishers:
                raise MissingPublisherError(
                    f"{name} ({type(module).__name__}) reads {key!r}, which no earlier module publishes",
                    hint="Place a layer that publishes it before this one.",
                )
        for key in getattr(module, "publishes", ()):
            if key in publishers:
                raise GptkitError(
                    f"{name} and {publishers[key]} both publish {key!r}; a published value is written once",
                    hint="Use a key of its own for each layer.",
                )
            publishers[key] = name


def _check_declared(module: nn.Module, attribute: str, key: Hashable) -> None:
    if key not in getattr(module, attribute, ()):
        raise StateError(
            f"{type(module).__name__} does not declare {key!r} in its attribute {attribute!r}",
            hint=f"Set self.{attribute} = ({key!r},) when the module is built.",
        )
