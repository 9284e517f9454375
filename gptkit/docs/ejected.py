"""Documentation page of a written model: the preset `gpt2` as `gptkit eject` writes it."""

from __future__ import annotations

from gptkit.core.registry import Registry
from gptkit.ejection.writing import write_source
from gptkit.runs.build import shell
from gptkit.runs.opening import open_spec

__all__ = ["PAGE", "page"]

PAGE = "ejected-gpt2.md"
_PRESET = "gpt2"


def page(registry: Registry) -> str:
    """Return the page as Markdown: the file, and how it corresponds to the chapters of the book."""
    spec = open_spec(_PRESET, registry=registry).spec
    vocab_size = spec.tokenizer.expected_vocab_size
    assert vocab_size is not None
    parameters = sum(parameter.numel() for parameter in shell(spec, vocab_size).parameters())
    source = write_source(spec.model, vocab_size, name=_PRESET, parameters=parameters)
    parts = [
        "# GPT-2 in one file",
        "This is what `gptkit eject gpt2 model.py` writes: the architecture of chapter 4 of the book, with the attention "
        "of chapter 3 and the embeddings of chapter 2, in plain PyTorch. It differs from the book's code in three ways: "
        "queries, keys and values are one projection, `F.scaled_dot_product_attention` computes the masked softmax, and a "
        "cache keeps keys and values during generation. See [writing a model out](eject.md) for the command, and "
        "[the book](the-book.md) for the other chapters.",
        f"```python\n{source}```",
    ]
    return "\n\n".join(parts) + "\n"
