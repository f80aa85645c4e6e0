"""Where frames go: one file per kind; `base.py` says what a sink module holds."""
