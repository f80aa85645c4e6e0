"""The Matrix: endless worlds that follow controls (arXiv 2412.03568), in the form that was released."""

MODELS = ("nano-matrix", "matrix-stage2", "matrix-stage3", "matrix-stage4")
"""Their names, the smallest first."""
