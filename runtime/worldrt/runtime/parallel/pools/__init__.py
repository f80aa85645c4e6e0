"""Models in workers of a cluster: supervised, exactly once, in order."""
