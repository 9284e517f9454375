"""A sampler that lets a model write only what fits a schema, a regular expression or a grammar."""
