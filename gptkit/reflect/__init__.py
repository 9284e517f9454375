"""Descriptions of the registered components as data, for the commands and the documentation."""
