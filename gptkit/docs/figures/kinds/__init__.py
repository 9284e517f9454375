"""One drawing function per kind of component."""
