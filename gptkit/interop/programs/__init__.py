"""Programs: exports that hold a model's computation with a decoding cache, written by several formats."""
