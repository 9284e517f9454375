"""Templates of the components of kind `activation`, for `gptkit eject`."""
