import pytest

from worldrt.engine.errors import ShapeError
from worldrt.engine.tensors import TensorSpec, axis_names, size_bytes, solve_axes

X = TensorSpec("x", "float32", ("batch", 16, "frames", "2*rows", "2*columns"))
LEVEL = TensorSpec("level", "float32", ("batch", "frames"))


def test_resolve_multiplies_named_axes():
    axes = {"batch": 2, "frames": 5, "rows": 4, "columns": 7}
    assert X.resolve(axes) == (2, 16, 5, 8, 14)
    assert axis_names([X, LEVEL]) == ["batch", "frames", "rows", "columns"]
    assert solve_axes([X, LEVEL], {"x": (2, 16, 5, 8, 14)}) == axes


def test_resolve_names_the_missing_axis():
    with pytest.raises(ShapeError, match="axis 'columns' has no size"):
        X.resolve({"batch": 1, "frames": 1, "rows": 1})


@pytest.mark.parametrize(
    "shapes",
    [
        {"x": (2, 16, 5, 8)},
        {"x": (2, 15, 5, 8, 14)},
        {"x": (2, 16, 5, 9, 14)},
        {"x": (2, 16, 5, 8, 14), "level": (2, 4)},
    ],
    ids=["rank", "number", "multiple", "agreement"],
)
def test_shapes_that_do_not_fit(shapes):
    with pytest.raises(ShapeError, match=r"expected (x|level) float32\["):
        solve_axes([X, LEVEL], shapes)


def test_size_bytes():
    assert size_bytes((3, 5), "bfloat16") == 30
    assert size_bytes((), "float32") == 4
