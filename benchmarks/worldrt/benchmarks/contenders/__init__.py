"""One file per contender of `trt-bench cpu`; `base.py` says what it holds."""
