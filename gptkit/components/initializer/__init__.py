"""Components of kind `initializer`."""
