"""Runtime parts of the kind `activation`, imported when a component is built."""
