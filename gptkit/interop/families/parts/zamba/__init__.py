"""Zamba and Zamba2: layers of a recurrence, some with a branch that they share."""
