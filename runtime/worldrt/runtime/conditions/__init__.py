"""What frames are conditioned on and where it comes from: one file per source; `base.py` says what a source holds."""

from worldrt.runtime.conditions.base import ConditionFrame, ConditionSource, open_source

__all__ = ["ConditionFrame", "ConditionSource", "open_source"]
