"""Worker processes: the same files as one process makes."""

from __future__ import annotations

from worldrt.export.plan import Options
from worldrt.export.run import export_bundle


def test_files_do_not_depend_on_who_traced_them(nano_bundle, tmp_path):
    """Three linked graphs, whose four segments two workers trace, beside one that is traced whole."""
    options = Options("nano", form="block", components=("text2image", "text"))
    checkpoint = nano_bundle / "checkpoint"
    asked = {"checkpoint": checkpoint, "verified": False, "torch_program": False}
    names: list[str] = []
    export_bundle(options, tmp_path / "alone", workers=1, **asked)
    report = export_bundle(
        options, tmp_path / "together", workers=2, progress=lambda text, done, total: names.append(text), **asked
    )
    assert report.peak_rss_bytes and len(names) == 4 and names[0] == "exporting text/encode"
    files = {path.relative_to(tmp_path / "alone") for path in (tmp_path / "alone").rglob("*.onnx")}
    assert {file.as_posix() for file in files} == {
        *("text2image/embed.onnx", "text2image/block.onnx", "text2image/head.onnx", "text/encode.onnx")
    }
    for file in files:
        assert (tmp_path / "alone" / file).read_bytes() == (tmp_path / "together" / file).read_bytes()
