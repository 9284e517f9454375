"""Bytes, byte-pair ranks and tokenizer files: what tokenizers share."""
