"""Components of kind `router`."""
