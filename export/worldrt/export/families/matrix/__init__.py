"""The Matrix: endless worlds that follow controls (arXiv 2412.03568), in the form that was released."""
