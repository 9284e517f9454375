"""Tracker that records trainings with MLflow."""
