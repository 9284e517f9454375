"""A gptkit engine that computes models with vLLM."""
