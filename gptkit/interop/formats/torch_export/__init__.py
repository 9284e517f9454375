"""Format `torch-export`."""
