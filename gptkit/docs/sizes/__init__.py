"""Sizes of components as expressions in the fields of a spec, fitted to measured models and verified at other sizes."""
