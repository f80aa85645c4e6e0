"""A GPU, or a skip that says what is missing. WORLDRT_TEST_BUNDLE names an exported nano, where one is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worldrt.engine.cuda import CudaDevice
from worldrt.engine.errors import BackendError


@pytest.fixture
def gpu() -> CudaDevice:
    try:
        return CudaDevice()
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture
def bundle(gpu, request) -> Path:
    """nano in float32; exported only where there is a GPU to run it on."""
    given = os.environ.get("WORLDRT_TEST_BUNDLE")
    return Path(given) if given else request.getfixturevalue("nano_bundle")
