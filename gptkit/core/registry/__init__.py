"""The registry: which kinds and components are installed, which plugin provides each, and which plugins failed."""

from gptkit.core.registry.lookup import Registry, default_registry
from gptkit.core.registry.plugin import DISABLE, GROUP, Entry, Plugin

__all__ = ["DISABLE", "GROUP", "Entry", "Plugin", "Registry", "default_registry"]
