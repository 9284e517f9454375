"""The built-in components: one directory per kind, one file per component. Every file is also an example for plugins."""
