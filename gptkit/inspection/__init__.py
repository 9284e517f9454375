"""What a model computes for a text: surprise, logit lens, attention."""
