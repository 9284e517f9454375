"""Benchmarks: each script prints one table, with versions and threads; docs/benchmarks.md lists the results."""
