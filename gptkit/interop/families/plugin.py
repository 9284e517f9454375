"""The module that installed entry points name; see `gptkit.interop.plugin`."""

from __future__ import annotations

from gptkit.interop.plugin import gptkit_components as gptkit_components
