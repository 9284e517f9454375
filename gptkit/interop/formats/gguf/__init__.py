"""GGUF, the files of llama.cpp: one file with a model's metadata, tokenizer and tensors."""
