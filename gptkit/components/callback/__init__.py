"""Components of the kind `callback`."""
