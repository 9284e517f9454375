"""The built-in decodings."""
