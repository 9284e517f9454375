"""Experiments: spec files, runs, and run directories."""
