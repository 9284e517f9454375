"""Kinds of components of a model or experiment: one module per kind, whose docstring is the contract."""

import gptkit.core.registry  # noqa: F401  (it installs itself as the resolver of fields that hold these kinds)
