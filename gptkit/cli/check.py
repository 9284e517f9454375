"""`gptkit check`: every mistake in a spec file at once."""

from __future__ import annotations

from gptkit.cli import console
from gptkit.cli.options import File, Overrides, chosen


def check(file: File, overrides: Overrides = None) -> None:
    """Check a spec file, and say every mistake with its line and column.

    Nothing is built and no data is read. The exit code is 0 where all is well and 2 where it is not.
    """
    from gptkit.cli.subject import open_subject
    from gptkit.model.plan import human_count
    from gptkit.model.tree import count

    subject = open_subject(file, chosen(overrides))
    model = subject.spec.model
    vocab_size = subject.vocab_size(fit=False)
    if vocab_size is None:
        size = "as many parameters as the corpus's vocabulary makes"
    else:
        size = f"{human_count(count(subject.model(vocab_size)))} parameters"
    layers = console.plural(model.n_layers, "layer")
    console.out(f"{file}: fine: {subject.spec.name}, {size}, {layers}, context {model.context_length:,}")
