"""Kind `rotary-scaling`: one file a component."""
