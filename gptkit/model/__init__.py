"""The model: its spec, the generic GPT, caches, starting values and sizes. It knows kinds, never a component."""
