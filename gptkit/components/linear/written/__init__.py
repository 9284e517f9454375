"""Templates of the components of kind `linear`, for `gptkit eject`."""
