"""Training by several processes: what each computes, what they exchange, and how a model is sharded over them."""
