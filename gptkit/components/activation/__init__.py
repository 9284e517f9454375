"""Components of kind `activation`."""
