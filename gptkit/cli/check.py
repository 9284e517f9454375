"""`gptkit check`: report every error in a spec file at once."""

from __future__ import annotations

from gptkit.cli import console
from gptkit.cli.options import File, Overrides, chosen
from gptkit.core.activity import working


def check(file: File, overrides: Overrides = None) -> None:
    """Check a spec file, and report every error with its line and column.

    Nothing is built and no data is read; gptkit show builds the model and counts its parameters. The exit code is 0 for a
    valid spec and 2 for an invalid one.
    """
    with working(f"checking {file}"):
        from gptkit.cli.subject import open_subject
        from gptkit.runs.cautions import cautions

        subject = open_subject(file, chosen(overrides))
        spec = subject.spec
        result = list(cautions(spec, subject.base if subject.run is None else None))
    for caution in result:
        console.warn(caution)
    model = spec.model
    layers = console.plural(model.n_layers, "layer")
    console.out(f"{file}: valid: {spec.name}, {layers}, width {model.d_model:,}, context {model.context_length:,}")
