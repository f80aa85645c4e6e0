import pytest

from worldrt.engine import plugin
from worldrt.engine.errors import InputError

BACKENDS = "worldrt.engine.backends"


def test_names_are_files_without_the_protocol():
    assert {"null", "onnxruntime"} <= set(plugin.names(BACKENDS))
    assert "base" not in plugin.names(BACKENDS)


@pytest.mark.parametrize("name", plugin.names(BACKENDS))
def test_every_backend_keeps_the_protocol(name):
    module = plugin.load(BACKENDS, name)
    assert module.unavailable() is None or isinstance(module.unavailable(), str)
    assert callable(module.open_session)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match="backends: no 'tensorflow' here; there are: .*null"):
        plugin.load(BACKENDS, "tensorflow")
