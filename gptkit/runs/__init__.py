"""Experiments: a whole spec file, the run that comes of it, and its directory."""
