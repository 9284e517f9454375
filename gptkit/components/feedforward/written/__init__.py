"""Templates of the components of kind `feedforward`, for `gptkit eject`."""
