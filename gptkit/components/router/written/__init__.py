"""Templates of the components of kind `router`, for `gptkit eject`."""
