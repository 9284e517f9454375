"""Components of kind `feedforward`."""
