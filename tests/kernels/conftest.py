from __future__ import annotations

from typing import Any

import pytest

from worldrt.kernels import _library


@pytest.fixture(params=["native", "numpy"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a test on the compiled library and on the numpy twin."""
    if request.param == "numpy":
        monkeypatch.setattr(_library, "load", lambda kind: (None, "the test took it away"))
    elif _library.load("cpu")[0] is None:
        pytest.skip(f"CPU kernels: {_library.load('cpu')[1]}")
    return request.param
