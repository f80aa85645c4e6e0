"""Times that the makers of Cosmos-Predict2 published: seconds of a whole video2world run on one GPU.

github.com/nvidia-cosmos/cosmos-predict2, documentations/performance.md: bfloat16, 35 steps with guidance, and one
clean pass at the end: 72 evaluations of the transformer. Means of three runs after a warm-up.
"""

from __future__ import annotations

from dataclasses import dataclass

STEPS, EVALUATIONS = 35, 72
SOURCE = "https://github.com/nvidia-cosmos/cosmos-predict2/blob/main/documentations/performance.md"


@dataclass(frozen=True)
class Case:
    """What was run. `fps` says how long the clip is: 16 are 93 frames, 10 are 61."""

    size: str
    resolution: str
    fps: int
    sparse: bool = False

    @property
    def title(self) -> str:
        return f"{self.size} {self.resolution}p, {self.fps} fps{', NATTEN' if self.sparse else ''}"


CASES = (
    Case("2B", "480", 16),
    Case("14B", "480", 16),
    Case("2B", "720", 16),
    Case("14B", "720", 16),
    Case("2B", "720", 10),
    Case("14B", "720", 10),
)
SPARSE_CASES = (Case("2B", "720", 16, True), Case("14B", "720", 16, True))

DENSE_S: dict[str, tuple[float | None, ...]] = {
    "B200": (30.7, 92.6, 123.9, 439.4, 62.4, 230.0),
    "H200 SXM": (50.2, 176.2, 221.7, 836.9, 111.1, 436.7),
    "H200 NVL": (54.0, 203.6, 267.2, 1006.7, None, None),
    "H100 SXM": (None, None, 228.8, 856.9, 115.1, 447.9),
    "H100 PCIe": (79.9, 286.5, 378.5, 1425.4, None, None),
    "H100 NVL": (87.3, 377.7, 355.7, 1348.6, None, None),
}
"""By GPU, in the order of `CASES`."""
SPARSE_S: dict[str, tuple[float, float]] = {
    "B200": (54.0, 223.1),
    "H200 SXM": (89.4, 412.9),
    "H200 NVL": (104.3, 489.5),
    "H100 SXM": (94.2, 426.0),
    "H100 PCIe": (149.6, 706.9),
    "H100 NVL": (138.7, 677.0),
}
"""By GPU, in the order of `SPARSE_CASES`."""


def times_s(name: str) -> dict[Case, float]:
    """The dense ones of a GPU."""
    return {case: seconds for case, seconds in zip(CASES, DENSE_S[name], strict=True) if seconds is not None}


SCALING = {("2B", 8): ("official code", (57.0,)), ("14B", 8): ("other systems, 14B to 30B", (86.0, 89.0))}
"""Percent of ideal scaling on so many GPUs. Official code: 52 s on eight H100, 238 s on one (issue 20 of its
repository). Others: LightX2V and xDiT, in their READMEs."""


def scaling_words(size: str, count: int) -> str:
    """`57 % (official code)`, or nothing."""
    name, shares = SCALING.get((size, count), ("", ()))
    return f"{' to '.join(f'{share:g}' for share in shares)} % ({name})" if shares else ""
