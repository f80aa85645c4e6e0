"""Communication between the ranks of a run, one file for each way."""
