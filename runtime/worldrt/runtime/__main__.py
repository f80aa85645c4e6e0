"""`python -m worldrt.runtime` is `trt-run`."""

import sys

from worldrt.runtime.cli import main

if __name__ == "__main__":
    sys.exit(main())
