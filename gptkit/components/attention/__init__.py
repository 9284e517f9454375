"""Components of kind `attention`."""
