"""Parts that families share: how one subject is read from configurations, written to them, and named in tensors."""
