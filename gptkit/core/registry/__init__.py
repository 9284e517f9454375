"""Registry of installed kinds and components, their plugins, and plugins that failed."""

from gptkit.core.registry.lookup import Registry, default_registry
from gptkit.core.registry.plugin import DISABLE, GROUP, Entry, Plugin

__all__ = ["DISABLE", "GROUP", "Entry", "Plugin", "Registry", "default_registry"]
