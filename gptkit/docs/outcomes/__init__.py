"""The outcomes of the conformance checks of built-in components, which ``measured.json`` holds."""
