"""Nemotron-H: how its configurations name the types of layers, and the parts of each type."""
