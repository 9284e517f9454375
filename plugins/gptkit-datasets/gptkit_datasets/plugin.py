"""Entry point of the plugin."""

from __future__ import annotations

import gptkit
from gptkit.kinds.data import DataSpec
from gptkit_datasets.spec import DatasetsSpec

__all__ = ["gptkit_components"]


@gptkit.hookimpl
def gptkit_components() -> list[type[DataSpec]]:
    return [DatasetsSpec]
