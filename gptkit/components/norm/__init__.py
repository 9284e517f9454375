"""Components of kind `norm`."""
