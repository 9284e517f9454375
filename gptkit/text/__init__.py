"""Shared code of tokenizers: bytes, byte-pair ranks and tokenizer files."""
