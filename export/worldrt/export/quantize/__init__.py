"""Denoisers in 8 bits: `dynamic` for CPUs, `static` with calibrated scales for engines, and the gate that measures."""
