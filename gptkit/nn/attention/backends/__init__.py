"""Implementations of softmax attention, one per file; `gptkit.components.attention_backend` selects among them."""
