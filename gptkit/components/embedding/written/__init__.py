"""Templates of the components of kind `embedding`, for `gptkit eject`."""
