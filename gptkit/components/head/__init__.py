"""Components of kind `head`."""
