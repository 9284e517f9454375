"""Generated documentation: ``gptkit.docs.pages.pages(registry)`` returns ``{path: markdown}``."""
