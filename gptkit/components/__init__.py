"""The built-in components: one folder a kind, one file a component. Every file is a template for a plugin."""
