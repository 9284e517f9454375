"""Templates of the components of kind `head`, for `gptkit eject`."""
