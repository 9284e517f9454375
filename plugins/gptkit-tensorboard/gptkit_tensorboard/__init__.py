"""Tracker that writes TensorBoard's event files."""
