"""Tensor parallelism of the vocabulary: embeddings and heads of which each process holds consecutive token ids.

An embedding looks up the ids of its part, and the sum over the processes is the result. A head computes the logits of its
part; the loss needs only two numbers per row of the other processes (`gptkit.ops.linear_cross_entropy`), and the logits are
concatenated where a caller needs them. A module declares which of its parameters have a row per token id; tied ones are
divided together.

Shapes: B batch, T tokens, E features, V vocabulary, P = V / number of parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.nn.part_group import PartGroup, enter, joined, leave
from gptkit.nn.tensor_parallel import Divided, TensorShard

__all__ = ["VocabularyParallel", "VocabularyPart", "divide_vocabulary", "vocabulary_tables"]


@dataclass(frozen=True)
class VocabularyPart:
    """The token ids whose rows one process holds.

    Attributes:
        index: the number of the part.
        size: number of token ids of each part.
        total: V, the number of all token ids.
        group: the processes that hold the parts.
    """

    index: int
    size: int
    total: int
    group: PartGroup = field(repr=False)

    @property
    def first(self) -> int:
        """The first token id of the part."""
        return self.index * self.size

    def gather(self, x: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, in order; collective, without a gradient."""
        return self.group.gather(x)

    def add(self, x: Tensor) -> Tensor:
        """Return the sum over the processes; collective, without a gradient."""
        return self.group.add(x)

    def look_up(self, ids_BT: Tensor, table_PE: Tensor) -> Tensor:
        """Return the vectors (B, T, E) of token ids, each from the process that holds it; collective."""
        own_BT = ids_BT - self.first
        inside_BT = (own_BT >= 0) & (own_BT < self.size)
        x_BTE = F.embedding(own_BT.clamp(0, self.size - 1), table_PE)
        return leave(x_BTE.masked_fill(~inside_BT[..., None], 0), self.group)

    def enter(self, x: Tensor) -> Tensor:
        """Return the input of the logits of the part, whose gradient is the sum over the processes."""
        return enter(x, self.group)

    def logits(self, logits_BTP: Tensor) -> Tensor:
        """Return the logits (B, T, V) of all parts; collective."""
        return joined(logits_BTP, self.index, self.group)


class VocabularyParallel(nn.Module):
    """Base class of modules that may hold the rows of some token ids only; by default not divided.

    A module that declares a table uses `vocabulary_part` where it is not None.
    """

    vocabulary_part: VocabularyPart | None = None

    @property
    def vocabulary_table(self) -> Tensor | None:
        """The parameter (V, E) that is divided, possibly that of another module; None if it cannot be divided."""
        return None

    def vocabulary_parameters(self) -> Mapping[str, int]:
        """Return the names of its own parameters with a row per token id, each with the dimension, from the end."""
        return {}


def divide_vocabulary(
    model: nn.Module, count: int, index: int, group: PartGroup
) -> tuple[dict[str, TensorShard], list[str]]:
    """Replace tables of token ids in a model by one of `count` parts of them, in place.

    Args:
        model: the model.
        count: the number of parts.
        index: the number of the part.
        group: the processes that hold the parts.

    Returns:
        The divided parameters by name, and the names of modules that stay whole, with the reasons.
    """
    whole: list[str] = []
    shards: dict[str, TensorShard] = {}
    for table, members in _users(model):
        names, size = " and ".join(name for name, _ in members), table.shape[0] // count
        if not _divisible(model, table, members):
            whole.append(f"{names} (a module that uses the table cannot be divided)")
            continue
        if table.shape[0] % count:
            whole.append(f"{names} ({table.shape[0]:,} token ids have no {count} equal parts)")
            continue
        for name, module in members:
            module.vocabulary_part = VocabularyPart(index, size, table.shape[0], group)
            for own, dim in module.vocabulary_parameters().items():
                owner = module.get_submodule(own.rpartition(".")[0])
                parameter = getattr(owner, own.rpartition(".")[2])
                shard = TensorShard(Divided(dim, {"token ids": table.shape[0]}), parameter.shape, count, index, group)
                part = nn.Parameter(shard.part(parameter.detach()), parameter.requires_grad)
                setattr(owner, own.rpartition(".")[2], part)
                shards[f"{name}.{own}" if name else own] = shard
    return shards, whole


def vocabulary_tables(model: nn.Module) -> list[Tensor]:
    """Return the tables that `divide_vocabulary` divides, if the number of token ids has equal parts."""
    return [table for table, members in _users(model) if _divisible(model, table, members)]


_Members = list[tuple[str, VocabularyParallel]]


def _users(model: nn.Module) -> list[tuple[Tensor, _Members]]:
    """Return the tables, each with the names and modules that declare it."""
    users: dict[int, tuple[Tensor, _Members]] = {}
    for name, module in model.named_modules():
        table = module.vocabulary_table if isinstance(module, VocabularyParallel) else None
        if table is not None:
            assert isinstance(module, VocabularyParallel)
            users.setdefault(id(table), (table, []))[1].append((name, module))
    return list(users.values())


def _divisible(model: nn.Module, table: Tensor, members: _Members) -> bool:
    """Return whether the owner of a table and all modules that use it declare the division."""
    declared = [module for _, module in members]
    if not any(table is module.get_parameter(own) for module in declared for own in module.vocabulary_parameters()):
        return False
    for module in model.modules():
        tied = getattr(module, "tied_weights", None) or {}
        if tied and not any(part in declared for part in module.modules()):
            embedding = model.get_submodule("embedding")
            if any(embedding.get_parameter(owner) is table for owner in tied.values()):
                return False
    return True
