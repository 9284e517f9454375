"""Runtime parts of the kind `optimizer`, imported when a component is built."""
