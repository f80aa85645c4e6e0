"""Pages of docs/ whose figures come from committed results and from the cost model."""
