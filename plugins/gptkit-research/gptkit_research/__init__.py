"""Recent ideas from papers as gptkit components: one file an idea."""
