"""Spec files: YAML, TOML or JSON read into plain data with locations, and errors reported with line and column."""

from __future__ import annotations

from gptkit.core.yaml import dump_yaml
from gptkit.files.nodes import merge
from gptkit.files.source import Source, read
from gptkit.files.validation import validate, validate_data

__all__ = ["Source", "dump_yaml", "merge", "read", "validate", "validate_data"]
