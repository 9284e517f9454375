"""Templates of the components of kind `norm`, for `gptkit eject`."""
