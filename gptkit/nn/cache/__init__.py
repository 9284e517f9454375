"""What layers keep between the calls of cached decoding."""
