"""Templates of the components of kind `position`, for `gptkit eject`."""
