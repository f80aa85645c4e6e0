"""Where a live stream goes while it runs; a file here is a kind of place (see `base`)."""
