"""The cost model: what a run has to compute, move and keep, and how long that takes on a GPU."""
