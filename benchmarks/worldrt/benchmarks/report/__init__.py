"""The report: results of `trt-bench` as one page for people."""
