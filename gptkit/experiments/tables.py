"""All numbers of an experiment as tables: rows for a DataFrame, and files in CSV and Parquet.

``pandas.DataFrame(tables(experiment)["trials"])`` is a table in a notebook.
"""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gptkit.core.atomic import write_bytes, write_text
from gptkit.experiments.effects import Effect, effects, effects_by_size
from gptkit.experiments.measures import chosen_variants, extrapolation, measure_of, problem
from gptkit.experiments.results import Experiment, Trial, Variant

__all__ = ["tables", "write_csv", "write_tables"]

Table = list[dict[str, Any]]

_SIZES = ("parameters", "flops_per_token", "cache_bytes_per_token")
_RESULTS = (
    "validation_loss",
    "best_validation_loss",
    "bits_per_byte",
    "tokens",
    "seconds",
    "tokens_per_second",
    "decode_tokens_per_second",
    "peak_memory",
)


def tables(experiment: Experiment) -> dict[str, Table]:
    """Return the tables by name.

    Returns:
        ``trials`` (a row for each training), ``effects`` (each choice against the base's), ``curves`` (losses by step) and
        ``positions`` (mean loss by position in the context).
    """
    measure = measure_of(experiment)
    chosen = {variant.key for variant in chosen_variants(experiment, measure)}
    judged = [*effects(experiment, measure), *effects_by_size(experiment, measure)]
    pairs = [(experiment.variant(trial.variant), trial) for trial in experiment.trials]
    return {
        "trials": [_trial(variant, trial, variant.key in chosen) for variant, trial in pairs],
        "effects": [_effect(effect, measure.field) for effect in judged],
        "curves": [
            {
                **_start(variant, trial),
                "step": step,
                "tokens": tokens,
                "validation_loss": validation,
                "training_loss": training,
            }
            for variant, trial in pairs
            for step, tokens, validation, training in trial.curve
        ],
        "positions": [row for variant, trial in pairs for row in _positions(variant, trial)],
    }


def write_tables(named: Mapping[str, Sequence[Mapping[str, Any]]], directory: Path) -> list[Path]:
    """Write each table as ``NAME.csv``, and as ``NAME.parquet`` if pyarrow is installed; return the files.

    Raises:
        FileError: a file cannot be written.
    """
    files = []
    parquet = importlib.util.find_spec("pyarrow") is not None
    for name, rows in named.items():
        files.append(directory / f"{name}.csv")
        write_csv(rows, files[-1])
        if parquet and rows:
            files.append(directory / f"{name}.parquet")
            _write_parquet(rows, files[-1])
    return files


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows with equal keys as CSV; None is an empty cell. Floats have all digits.

    Raises:
        FileError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if rows:
        writer.writerow(rows[0])
        writer.writerows(row.values() for row in rows)
    write_text(path, text.getvalue())


def _write_parquet(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), buffer)
    write_bytes(path, buffer.getvalue())


def _start(variant: Variant, trial: Trial) -> dict[str, Any]:
    """Return the columns with which the rows of a trial begin."""
    return {
        "variant": variant.label,
        **variant.choices,
        "size": variant.size,
        "learning_rate": variant.learning_rate,
        "seed": trial.seed,
    }


def _trial(variant: Variant, trial: Trial, chosen: bool) -> dict[str, Any]:
    return {
        **_start(variant, trial),
        "key": variant.key,
        "is_base": variant.is_base,
        "compared": chosen,
        "status": trial.status,
        "problem": problem(trial),
        **{name: getattr(trial, name) for name in _RESULTS},
        "extrapolation": extrapolation(trial),
        **{name: getattr(variant, name) for name in _SIZES},
        "matched": variant.matched,
    }


def _positions(variant: Variant, trial: Trial) -> Table:
    within, beyond = trial.loss_by_position or (), trial.loss_beyond or ()
    return [
        {**_start(variant, trial), "position": position, "beyond_training": position >= len(within), "loss": loss}
        for position, loss in enumerate((*within, *beyond))
    ]


def _effect(effect: Effect, field: str) -> dict[str, Any]:
    test = effect.test
    difference = None if test is None else test.difference
    return {
        "axis": effect.axis,
        "value": effect.value,
        "baseline": effect.baseline,
        "size": effect.size,
        "measure": field,
        "difference": None if difference is None else difference.mean,
        "low": None if difference is None else difference.low,
        "high": None if difference is None else difference.high,
        "relative": effect.relative,
        "p": None if test is None else test.p,
        "p_corrected": effect.p,
        "p_sign_flips": None if test is None else test.p_flips,
        "smallest_p_sign_flips": None if test is None else test.smallest_p_flips,
        "seeds": len(effect.seeds),
        "settings": effect.n_settings,
        "settings_omitted": effect.n_omitted,
        "failed": effect.n_failed,
        "verdict": effect.verdict,
    }
