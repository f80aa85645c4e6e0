"""OpenDWM: a street seen by several cameras, drawn from a layout, frame by frame (github.com/SenseTime-FVG/OpenDWM)."""

MODELS = ("nano-opendwm", "opendwm")
"""Their names, the smallest first."""
