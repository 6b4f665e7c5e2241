"""Rewrites of ONNX graphs that several passes use."""
