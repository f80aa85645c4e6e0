"""Model families. A folder here is a family, and its name is the key."""
