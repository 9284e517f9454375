"""A tracker that writes TensorBoard's event files."""
