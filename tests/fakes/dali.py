"""A DALI that records what a reader asks of it, for machines without a GPU. What it gives has the shape asked for."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np


class FakeDali:
    """`calls` are (operator, keywords) in the order they were made; `pipelines` the keywords of each."""

    def __init__(self, made: np.ndarray) -> None:
        self.made, self.calls, self.pipelines, self.outputs = made, [], [], []

    def install(self, monkeypatch) -> FakeDali:
        """Have `nvidia.dali` be this until the test ends."""
        fake = self

        class Pipeline:
            def __init__(self, **keywords):
                fake.pipelines.append(keywords)

            def __enter__(self):
                return self

            def __exit__(self, *_):
                return None

            def set_outputs(self, *nodes):
                fake.outputs.append(nodes)

            def run(self):
                return (SimpleNamespace(at=lambda i: fake.made),)

        dali, fn, types = (ModuleType(f"nvidia.dali{part}") for part in ("", ".fn", ".types"))
        dali.Pipeline, dali.fn, dali.types = Pipeline, fn, types
        types.RGB, types.ANY_DATA, types.UINT8, types.UINT16 = "RGB", "ANY_DATA", "UINT8", "UINT16"
        fn.external_source = self._operator("external_source")
        fn.decoders = SimpleNamespace(image=self._operator("image"), video=self._operator("video"))
        for module in (dali, fn, types):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        return self

    def _operator(self, name):
        def call(*inputs, **keywords):
            self.calls.append((name, keywords))
            return SimpleNamespace(cpu=lambda: f"{name} on the host")

        return call
