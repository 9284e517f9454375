"""Templates of the components of kind `block`, for `gptkit eject`."""
