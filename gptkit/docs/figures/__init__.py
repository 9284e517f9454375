"""Figures of the component pages, drawn from the components themselves.

`gptkit.docs.figures.drawing.figure(cls, registry)` builds a component as the conformance kit does, evaluates it, and
returns a `Figure`. One function per kind draws every component of the kind, those of plugins too.
"""
