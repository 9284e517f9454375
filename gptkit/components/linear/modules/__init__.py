"""Runtime parts of the kind `linear`, imported when a component is built."""
