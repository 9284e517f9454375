"""Errors, specs, the open union of components, the registry and the plugin hooks."""
