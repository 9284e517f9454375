"""Figures of the guided path (docs/learn): computed when the site is built, drawn as inline HTML and SVG."""
