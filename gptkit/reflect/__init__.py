"""What is registered, as data: read by the commands and the documentation."""
