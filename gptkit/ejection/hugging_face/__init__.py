"""Models written out as code for transformers."""
