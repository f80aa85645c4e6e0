"""Runs over several devices: processes that make a clip together, and pools of actors."""
