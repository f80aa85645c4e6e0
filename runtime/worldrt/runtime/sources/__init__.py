"""Where given frames come from."""
