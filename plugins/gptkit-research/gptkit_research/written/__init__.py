"""Templates of components for `gptkit eject`."""
