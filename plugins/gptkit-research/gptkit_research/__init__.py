"""Recent ideas from papers as gptkit components, one file for each."""
