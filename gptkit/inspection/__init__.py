"""What a model computes for a text, and why a token was chosen: data, and HTML pages to look at."""
