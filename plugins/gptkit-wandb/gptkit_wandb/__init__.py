"""Tracker that records trainings with Weights & Biases."""
