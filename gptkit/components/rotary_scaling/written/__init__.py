"""Templates of the components of kind `rotary-scaling`, for `gptkit eject`."""
