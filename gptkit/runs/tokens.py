"""The tokens of a run's corpus, for evaluations."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptkit.core.errors import DataError, GptkitError
from gptkit.data import Prepared, open_prepared, prepare
from gptkit.data.prepared import token_files
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.runs.corpus import find_prepared
from gptkit.runs.directory import RunDirectory
from gptkit.runs.opening import Opened
from gptkit.runs.spec import ExperimentSpec

__all__ = ["run_tokens"]

_log = logging.getLogger("gptkit")


def run_tokens(spec: ExperimentSpec, tokenizer: Tokenizer, provenance: Mapping[str, Any], path: Path) -> Prepared:
    """Return the corpus of a run as tokens, which are prepared again if they were removed.

    Args:
        spec, tokenizer, provenance: those of the run.
        path: the run directory.

    Raises:
        DataError: the tokens are damaged, or the corpus is not found.
    """
    directory = RunDirectory(path)
    base = Path(provenance.get("base", "."))
    trained_on = provenance.get("data")
    if token_files(directory.data):
        try:
            return open_prepared(directory.data)
        except DataError:
            if (moved := _prepared_in(spec, base, trained_on)) is None:
                raise
            return moved
    with directory.lock():
        prepared = prepare(spec.data, tokenizer, directory.data, base, of_run=True)
    if trained_on not in (None, prepared.fingerprint):
        _log.warning("the corpus of %s has changed since its training", path)
    return prepared


def _prepared_in(spec: ExperimentSpec, base: Path, fingerprint: Any) -> Prepared | None:
    """Return tokens prepared in the directory of a spec, to which a run was moved; None without those of the run."""
    try:
        prepared = find_prepared(Opened(spec, base))
    except GptkitError:
        return None
    return prepared if prepared is not None and prepared.fingerprint == fingerprint else None
