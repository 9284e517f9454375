"""Kind `attention-backend`: one file a component."""
