"""Templates of the components of kind `attention`, for `gptkit eject`."""
