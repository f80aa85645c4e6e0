"""`onnx.checker` for graphs whose weights lie elsewhere."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from worldrt.engine.errors import BundleError
from worldrt.engine.safetensors import SafetensorsFile


def check_graph(path: Path, weight_root: Path) -> None:
    """Check a graph and every reference of it into the weight files. Raises `BundleError`.

    The checker wants external data beside the graph, as plain files, and looks only whether they are there. So it is
    given empty files of the right sizes; that references hit real tensors is checked here, against the files' headers.
    """
    proto = onnx.load(str(path), load_external_data=False)
    files = {location: SafetensorsFile.open(weight_root / location) for location in _locations(proto)}
    for tensor in proto.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _check_reference(path, tensor, files)
    with tempfile.TemporaryDirectory() as folder:
        for location, file in files.items():
            twin = Path(folder, location)
            twin.parent.mkdir(parents=True, exist_ok=True)
            with twin.open("wb") as empty:
                empty.truncate(file.size_bytes)
        beside = Path(folder, "graph.onnx")
        beside.write_bytes(path.read_bytes())
        try:
            onnx.checker.check_model(str(beside), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise BundleError(f"{path}: not a valid ONNX graph: {str(error).strip()}") from error


def _locations(proto: Any) -> Iterator[str]:
    places = (_place(t)["location"] for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL)
    yield from dict.fromkeys(places)


def _place(tensor: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _check_reference(path: Path, tensor: Any, files: dict[str, SafetensorsFile]) -> None:
    place = _place(tensor)
    wanted = (int(place["offset"]), int(place["length"]), tuple(tensor.dims))
    stored = {(t.offset, t.nbytes, t.shape) for t in files[place["location"]].tensors.values()}
    if wanted not in stored:
        raise BundleError(
            f"{path}: '{tensor.name}' points at bytes {wanted[0]} to {wanted[0] + wanted[1]} of {place['location']}, "
            "where no tensor of its shape lies; export again"
        )
