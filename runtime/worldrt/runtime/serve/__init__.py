"""A world behind a web page: one makes it, one drives it, and several look on."""
