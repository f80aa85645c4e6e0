"""One small bundle for all tests of this room."""

import pytest


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """nano with one denoiser and no VAE or text: enough for the null backend and for quantising."""
    from worldrt.export.plan import Options
    from worldrt.export.run import export_bundle

    folder = tmp_path_factory.mktemp("bench") / "nano"
    options = Options(model="nano", task="video2world", components=("video2world",))
    export_bundle(options, folder, verified=False, torch_program=False)
    return folder
