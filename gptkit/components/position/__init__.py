"""Components of kind `position`."""
