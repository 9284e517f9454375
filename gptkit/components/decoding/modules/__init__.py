"""Runtime parts of the built-in decodings."""
