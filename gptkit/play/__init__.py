"""`gptkit play`: a local page on which a prompt, the chain of samplers and the seed change, and tokens stream in."""
