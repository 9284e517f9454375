"""Kind `attention`: one file a component."""
