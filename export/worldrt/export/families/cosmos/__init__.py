"""Cosmos-Predict2: text2image and video2world, with their VAE and text encoder."""

MODELS = ("nano", "0.6B", "2B", "14B")
"""Their names, the smallest first."""
