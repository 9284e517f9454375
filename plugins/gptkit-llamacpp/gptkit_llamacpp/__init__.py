"""A gptkit engine that computes models with llama.cpp."""
