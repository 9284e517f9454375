"""Components of kind `attention-backend`."""
