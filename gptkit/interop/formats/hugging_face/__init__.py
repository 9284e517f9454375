"""Directories as transformers saves them: config.json, safetensors and the files of a tokenizer."""
