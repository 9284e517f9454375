"""Runtime parts of the kind `norm`, imported when a component is built."""
