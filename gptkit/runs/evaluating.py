"""Evaluation of a run: loss, perplexity and bits per byte of its validation split or of other text.

Both are evaluated like the validation in training: documents are concatenated with the tokenizer's start and end tokens, and
split into data windows, of the context length unless `training.window` is set. So equal texts have equal numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

import torch

from gptkit.core.errors import DataError
from gptkit.core.registry import default_registry
from gptkit.data import prepare
from gptkit.data.files import TokenFile
from gptkit.data.index import Counts
from gptkit.data.prepared import ordered_windows
from gptkit.data.text_bytes import text_windows
from gptkit.kinds.data import DataSpec
from gptkit.training.evaluation import Evaluation, combined, evaluate
from gptkit.training.precision import pick_precision

if TYPE_CHECKING:
    from gptkit.runs.run import Run

__all__ = ["NO_BITS_PER_BYTE", "NO_TEXT_PREDICTED", "Progress", "evaluate_files", "evaluate_tokens", "numbers"]

NO_BITS_PER_BYTE = "the tokenizer loses part of the text, so the loss is not that of its bytes"
"""Reason for missing bits per byte, if the tokenizer is not lossless."""

NO_TEXT_PREDICTED = "no predicted token represents text"
"""Reason for missing bits per byte, if the tokenizer is lossless."""

Progress = Callable[[int, int], None]
"""Progress callback: receives the number of evaluated data windows and the total number."""

_LINES = tuple(f"{name}{suffix}" for suffix in ("", ".gz", ".bz2", ".xz", ".zst") for name in (".jsonl", ".ndjson"))
_T = TypeVar("_T")


def evaluate_tokens(
    run: Run,
    file: TokenFile,
    counts: Counts,
    data: DataSpec,
    *,
    batch_size: int,
    max_batches: int | None = None,
    progress: Progress | None = None,
) -> Evaluation | None:
    """Evaluate a run's model on tokens.

    Args:
        run: the run.
        file: the tokens.
        counts: counts of the tokens, including whether decoding them restores the text.
        data: the spec of the data windows.
        batch_size: number of data windows per batch.
        max_batches: maximum number of batches; all by default.
        progress: called after each batch.

    Returns:
        The evaluation, with bytes of text only if decoding the tokens restores the text; None without a token to predict.
    """
    windows = ordered_windows(file, data, run.spec.window)
    if windows is None:
        return None
    limit = None if max_batches is None else max_batches * batch_size
    text = text_windows(file, counts, windows.context_length, run.tokenizer, limit)
    total = len(windows) if max_batches is None else min(len(windows), max_batches * batch_size)
    device = run.model.device
    return evaluate(
        run.model,
        _reported(windows.batches(batch_size, max_batches), batch_size, total, progress),
        device=device,
        # A model in a precision for inference computes in the dtype of its activations.
        precision=torch.float32 if run.model.precision else pick_precision(run.spec.training.precision, device),
        text_bytes=None if text is None else (batch.targets_BT for batch in text.batches(batch_size, max_batches)),
    )


def evaluate_files(
    run: Run, paths: Sequence[str | Path], *, batch_size: int, max_batches: int | None, progress: Progress | None = None
) -> Evaluation:
    """Evaluate a run's model on text files, directories and globs.

    JSON Lines (by suffix, or a directory where the run was trained on them) are read as the run's `data` reads them where
    that is of the component `jsonl`, and everything else as the run reads text.

    Raises:
        DataError: a file is missing, or the files contain no text.
    """
    names = [str(path) for path in paths]
    own = run.spec.data
    lines = [name for name in names if name.endswith(_LINES) or (own.name == "jsonl" and Path(name).is_dir())]
    results = []
    for component, chosen in (("jsonl", lines), ("text", [name for name in names if name not in lines])):
        if not chosen:
            continue
        data = _data_spec(own, component, chosen)
        with TemporaryDirectory(prefix="gptkit-") as directory:
            try:
                prepared = prepare(data, run.tokenizer, Path(directory) / "data", Path())
            except DataError as error:
                remedy = _remedy(data, error.hint)
                if remedy == error.hint:
                    raise
                raise DataError(error.message, hint=remedy) from None
            result = evaluate_tokens(
                run,
                prepared.train,
                prepared.train_counts,
                data,
                batch_size=batch_size,
                max_batches=max_batches,
                progress=progress,
            )
        if result is None:
            raise DataError(f"{', '.join(chosen)}: no text to evaluate on", hint="Pass files with text.")
        results.append((result, result.bits_per_byte is not None))
    whole = combined([result for result, _ in results])
    if all(restored for _, restored in results):
        return whole
    return Evaluation(whole.loss, whole.tokens)


def numbers(result: Evaluation) -> dict[str, float]:
    """Return the evaluation in the form of `Run.evaluate`."""
    measured = {"loss": result.loss, "perplexity": result.perplexity, "tokens": float(result.tokens)}
    return measured if result.bits_per_byte is None else {**measured, "bits_per_byte": result.bits_per_byte}


def _remedy(data: DataSpec, hint: str | None) -> str | None:
    """Return the remedy for a corpus; one that sets a field of the data names what to write instead, as the run has it."""
    if hint is None or "Set `" not in hint:
        return hint
    fields = [getattr(data, name, None) for name in ("messages_field", "prompt_field", "field")]
    if fields[0] is not None:
        fields = fields[:1]
    program = ", ".join(f'"{field}": .FIELD' for field in fields if field is not None)
    return f"Lines are read as those of the run's corpus. Write such lines: jq -c '{{{program}}}' FILE > LINES"


def _data_spec(own: DataSpec, component: str, paths: Sequence[str]) -> DataSpec:
    """Return the run's data spec for a kind of file, with other paths and without validation split."""
    changes = {"path": tuple(paths), "validation": 0.0}
    if own.name == component:
        replaced: DataSpec = own.replace(**changes)
        return replaced
    cls = default_registry().component("data", component)
    made = cls.model_validate({"name": component, **changes, "document_mask": own.masks_documents})
    assert isinstance(made, DataSpec)
    return made


def _reported(batches: Iterator[_T], batch_size: int, total: int, progress: Progress | None) -> Iterator[_T]:
    for index, batch in enumerate(batches):
        yield batch
        if progress is not None:
            progress(min(total, (index + 1) * batch_size), total)
