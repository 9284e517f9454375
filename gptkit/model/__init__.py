"""The model: its spec, the generic GPT, caches, initialization and sizes. It depends on kinds, never on a component."""
