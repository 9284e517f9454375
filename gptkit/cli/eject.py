"""`gptkit eject`: write a model as one file of plain PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptkit.cli import console
from gptkit.cli.collection import import_torch
from gptkit.cli.options import FileOrRun, Overrides, Quiet, chosen
from gptkit.core.activity import working
from gptkit.core.commands import command
from gptkit.core.errors import GptkitError

if TYPE_CHECKING:
    from gptkit.cli.subject import Subject
    from gptkit.model.gpt import GPT

__all__ = ["eject"]

PROMPT = (1, 2, 3)
"""Token ids of the check."""
N_TOKENS = 8
"""Number of tokens that the check generates, as the file does when it is run."""


def eject(
    target: FileOrRun,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The Python file to write.")],
    overrides: Overrides = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace the file if gptkit eject wrote it; your changes to it are lost.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Write the model of a spec or run as one readable file of plain PyTorch, which does not need gptkit.

    The file has only what the model uses, and its parameters have the names of the run's weights. It includes load_weights,
    generate and a decoding cache. A component that cannot be written out is refused by name.

    For example: gptkit eject runs/tiny model.py
    """
    _check(file, force)
    with working(f"reading {target}", quiet=quiet):
        from gptkit.cli.subject import open_subject
        from gptkit.core.atomic import write_text
        from gptkit.ejection.writing import unused_weights, write_source

        subject = open_subject(target, chosen(overrides))
        vocab_size = subject.vocab_size(fit=True)
        if vocab_size is None:
            raise GptkitError(
                f"{target}: the vocabulary size is unknown", hint="Set model.vocab_size, as in: -s model.vocab_size=50257"
            )
        import_torch()
        unused = unused_weights(subject.spec.model, vocab_size)
        model = subject.model(vocab_size)
        parameters = model.named_parameters()
        n_parameters = sum(parameter.numel() for name, parameter in parameters if not name.startswith(unused))
        name = subject.spec.name
        source = write_source(subject.spec.model, vocab_size, name=name, parameters=n_parameters)
        _require_weights(source, model, unused)
        expected = None if subject.run is None else _expected(subject, target)
        write_text(file, source)
    if quiet:
        return
    lines = source.count("\n")
    console.note(f"written to {file}: {console.plural(lines, 'line')}, {n_parameters:,} parameters")
    if expected is not None:
        weights, ids = expected
        arguments = " ".join(map(str, PROMPT))
        console.note(f"check: {command('python', file, weights)} {arguments}")
        console.note(f"must print {' '.join(map(str, ids))}, as this run does")


def _check(file: Path, force: bool) -> None:
    """Raise unless the file may be written, before anything is computed."""
    from gptkit.core.atomic import reading
    from gptkit.ejection.model import GENERATOR

    if file.suffix != ".py":
        raise GptkitError(f"{file}: the model is written as Python", hint=f"As in: {file.stem or 'model'}.py")
    if file.is_dir():
        raise GptkitError(f"{file} is a directory", hint="Name a file.")
    if not file.parent.is_dir():
        raise GptkitError(f"the directory {file.parent} does not exist", hint="Create it, or choose another one.")
    if not file.exists():
        return
    with reading(file), file.open("rb") as stream:
        first = stream.readline(1000).decode("utf-8", errors="replace")
    if GENERATOR not in first:
        raise GptkitError(f"{file} exists and was not written by gptkit eject", hint="Choose another name.")
    if not force:
        raise GptkitError(
            f"{file} exists", hint="Pass --force to replace it (changes to it are lost), or choose another name."
        )


def _require_weights(source: str, model: GPT, unused: tuple[str, ...]) -> None:
    """Raise if the written source declares other weights than the model has, before it is written."""
    from gptkit.ejection.declared import UnreadableError, declared_weights, difference

    weights = {name: tuple(weight.shape) for name, weight in model.state_dict().items() if not name.startswith(unused)}
    try:
        problem = difference(declared_weights(source, "GPT"), weights)
    except UnreadableError:  # of a plugin's template; the command that is printed checks it
        return
    if problem:
        raise GptkitError(
            f"the model cannot be written: the code and the weights do not fit: {problem}",
            hint="The template of a component is wrong; report it, or choose another component.",
        )


def _expected(subject: Subject, target: str) -> tuple[Path, list[int]]:
    """Return the run's weights, and the ids that its model and the written one must both generate."""
    from gptkit.checkpoint.store import CheckpointStore
    from gptkit.runs.run import load

    assert subject.run is not None
    checkpoint = CheckpointStore(subject.run.checkpoints).latest()
    model = load(target).model
    if model.precision is not None:
        raise GptkitError(
            f"the weights of {target} are stored in precision {model.precision.name!r}, not as dense matrices",
            hint="Eject the run that it was quantized from.",
        )
    assert checkpoint is not None, "load raises without a checkpoint"
    return checkpoint / "model.safetensors", _continued(model)


def _continued(model: GPT) -> list[int]:
    import torch

    ids_BT = torch.tensor([[token % model.vocab_size for token in PROMPT]])
    with torch.no_grad():
        for _ in range(N_TOKENS):
            next_B1 = model(ids_BT, last_only=True).logits[:, -1].argmax(dim=-1, keepdim=True)
            ids_BT = torch.cat((ids_BT, next_B1), dim=1)
    ids: list[int] = ids_BT[0].tolist()
    return ids
