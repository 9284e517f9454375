"""Components of kind `data`."""
