"""Format `onnx`."""
