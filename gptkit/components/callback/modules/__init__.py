"""Runtime parts of the components of kind `callback`."""
