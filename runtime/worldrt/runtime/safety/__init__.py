"""The guardrail: what may not be asked for, and what may not be shown."""

from worldrt.runtime.safety.opening import open_guard

__all__ = ["open_guard"]
