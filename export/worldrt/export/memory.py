"""How much memory a process needed."""

from worldrt.engine.memory import peak_rss_bytes

__all__ = ["peak_rss_bytes"]
