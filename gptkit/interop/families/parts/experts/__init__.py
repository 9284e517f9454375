"""Mixtures of experts: what families have in common in how they name them."""

from gptkit.interop.families.parts.experts.reading import INERT, dense, first_dense, read_groups, read_sparse, sparse
from gptkit.interop.families.parts.experts.tensors import Rows, expert_rules, mixtral_rules
from gptkit.interop.families.parts.experts.writing import first_of, write_experts, write_groups, write_sparse

__all__ = [
    "INERT",
    "Rows",
    "dense",
    "expert_rules",
    "first_dense",
    "first_of",
    "mixtral_rules",
    "read_groups",
    "read_sparse",
    "sparse",
    "write_experts",
    "write_groups",
    "write_sparse",
]
