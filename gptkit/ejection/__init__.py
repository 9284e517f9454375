"""Models written out as one file of plain PyTorch."""
