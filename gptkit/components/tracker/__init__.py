"""Components of the kind `tracker`."""
