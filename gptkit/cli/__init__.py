"""The command line: one file a command, `main` to put them together. Commands import torch only when they run."""
