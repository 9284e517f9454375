"""Architecture diagrams: a resolved spec as inline SVG, in one column that a phone can show.

`outline` reads a spec into plain data, `drawing` draws this data. Neither imports torch; the numbers of parameters are given
by `gptkit.model.parts`, where a model is built. The spec builder's ``diagram.js`` draws the same outline, to the same bytes.
"""
