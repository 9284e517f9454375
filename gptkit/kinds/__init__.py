"""The kinds: what each slot of a model or an experiment promises. One file a kind; each docstring is the contract."""
