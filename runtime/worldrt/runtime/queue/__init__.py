"""The queue that runs a schedule: latents, their sampler state, their conditions, and noise by counter."""
