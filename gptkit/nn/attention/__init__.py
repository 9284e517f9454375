"""Building blocks of attentions."""
