"""The built-in components: one directory a kind, one file a component. Every file is a template for a plugin."""
