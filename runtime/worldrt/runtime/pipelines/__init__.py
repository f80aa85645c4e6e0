"""One file per task: from a request to frames."""
