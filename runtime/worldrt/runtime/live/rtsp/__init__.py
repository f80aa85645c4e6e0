"""A small RTSP server (RFC 2326): one publisher and any number of players for each path."""
