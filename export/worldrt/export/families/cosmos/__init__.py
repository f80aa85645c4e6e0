"""Cosmos-Predict2: text2image and video2world, with their VAE and text encoder."""
