"""From a checkpoint to a bundle of graphs."""
