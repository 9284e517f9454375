"""Distributed training: division of batches, communication, and sharding of the model."""
