"""`trt-bench gpu`: one file per part; each returns tables and samples and may fail on its own.

On `--device cpu` every part runs with tiny shapes, so that the code is known to work before a GPU is at hand.
"""
