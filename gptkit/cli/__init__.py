"""The command line: one module per command, assembled in `main`. Commands import torch only when they run."""
