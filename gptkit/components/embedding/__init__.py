"""Components of kind `embedding`."""
