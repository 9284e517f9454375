"""A run with a chat template, for tests of conversations."""

from __future__ import annotations

from pathlib import Path

import gptkit
from gptkit.components.tokenizer.bpe import BpeSpec
from gptkit.components.tokenizer.hugging_face import HuggingFaceTokenizer

__all__ = ["CHAT_TEMPLATE", "make_chat_run"]

CHAT_TEMPLATE = """{%- for message in messages %}
    {{- "<|turn|>" + message.role + "\\n" + message.content + "<|done|>\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<|turn|>assistant\\n" }}{% endif %}"""


def make_chat_run(directory: Path, context_length: int = 256, template: str = CHAT_TEMPLATE, head: str = "linear") -> Path:
    """Write a small untrained model whose tokenizer has a chat template."""
    spec = BpeSpec(vocab_size=300, pattern="gpt2", special_tokens=("<|turn|>", "<|done|>"))
    words = spec.fit(iter(["hello there, hello you, system user assistant"]))
    tokenizer = HuggingFaceTokenizer(words.to_tokenizer_json().encode(), None, "<|endoftext|>", template)
    model = {"d_model": 32, "n_layers": 2, "context_length": context_length, "attention": {"n_heads": 2}, "head": head}
    return gptkit.save_run(directory, gptkit.GPT(model, vocab_size=tokenizer.vocab_size, seed=1), tokenizer)
