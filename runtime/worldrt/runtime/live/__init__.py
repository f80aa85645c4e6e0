"""A world while it runs: frames with their stamps, one encoding, and everyone who looks on."""
