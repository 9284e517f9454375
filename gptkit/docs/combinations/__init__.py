"""Which attentions and positions combine, as measured: one model for each pair, checked in nine ways."""
