"""Components of kind `linear`."""
