"""Training: loop, callbacks, records, and spec."""
