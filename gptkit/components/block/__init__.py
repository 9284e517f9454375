"""Components of kind `block`."""
