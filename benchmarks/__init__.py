"""Side-by-side measurements: each script prints one table, with versions and threads; results go into docs/benchmarks.md."""
