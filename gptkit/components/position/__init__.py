"""Kind `position`: one file a component."""
