"""Where given frames come from: one file per reader; `base.py` says what a reader module holds."""

from worldrt.runtime.sources.base import Source, open_source

__all__ = ["Source", "open_source"]
