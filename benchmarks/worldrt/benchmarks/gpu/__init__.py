"""`trt-bench gpu`: one file per part, each run in a process of its own with a limit of time; any may fail alone.

On `--device cpu` every part runs with tiny shapes, so that the code is known to work before a GPU is at hand.
"""
