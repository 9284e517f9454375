"""The kinds: what each slot of a model or an experiment promises. One file a kind; each docstring is the contract."""

import gptkit.core.registry  # noqa: F401  (it installs itself as the resolver of fields that hold these kinds)
