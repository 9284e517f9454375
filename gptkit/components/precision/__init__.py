"""Components of kind `precision`."""
