"""Components of kind `rotary-scaling`."""
