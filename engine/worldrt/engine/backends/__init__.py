"""One file per backend; `base.py` says what a backend module holds."""
