"""Data components: where a corpus comes from."""
