"""The documentation of what is registered: ``gptkit.docs.pages.pages(registry)`` gives ``{path: markdown}``."""
