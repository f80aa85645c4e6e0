"""An observer that remembers, and may stop a run."""

from __future__ import annotations

from worldrt.runtime import Observer


class Told(Observer):
    """Remembers what it was told. It is interrupted where it is told of `stop_at`, a stage and the steps done."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.steps, self.warnings, self.stop_at = [], [], stop_at

    def progress(self, stage, done, total):
        self.steps.append((stage, done, total))
        if (stage, done) == self.stop_at:
            raise KeyboardInterrupt

    def warn(self, text):
        self.warnings.append(text)
