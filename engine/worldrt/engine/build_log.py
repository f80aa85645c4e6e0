"""What a builder says while it works, and what can be read from it: compiled layers, memory, warnings, errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Log = Callable[[str, str], None]
"""Called with a severity (`ERROR`, `WARNING`, `INFO`) and a text."""

_LAYER = re.compile(r"^(?:Layer: )?Name: (?P<name>.*?), LayerType: (?P<kind>\w+), (?P<rest>.*)$")
_TENSOR = re.compile(r"Name: ([^,]+), Dimensions: (\[[^\]]*\]).*?(?:Datatype|Format/Datatype): ([\w ]+)")
_UNNAMED = "__my"  # how the compiler's own names begin
_MEMORY = re.compile(r"^(Max Scratch|Total Activation|Total Weights) Memory: (\d+) bytes")
_KEPT_CHARACTERS = 400  # of a line that is not understood
_IDLE = "has Int64 binding"  # a warning about inputs whose types are compared with the bundle's


@dataclass
class BuildLog:
    """Collects the messages of one build. Verbose ones are read and dropped, the others passed on to `tell`."""

    tell: Log
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)
    memory_bytes: dict[str, int] = field(default_factory=dict)

    def hear(self, severity: str, text: str) -> None:
        """Take one message. May be called from any thread of the library."""
        if severity == "VERBOSE":
            if "LayerType" in text:
                self.layers += read_layers(text)
            return
        found = _MEMORY.match(text)
        if found:
            self.memory_bytes[found[1]] = max(int(found[2]), self.memory_bytes.get(found[1], 0))
        if severity == "WARNING" and _IDLE not in text:
            self.warnings.append(text.strip())
        elif severity in ("ERROR", "INTERNAL_ERROR"):
            self.errors.append(text.strip())
        self.tell(severity, text.strip())


def read_layers(text: str) -> list[str]:
    """One line per compiled layer of a listing: `gemm name: x Half[-1,256] -> Half[-1,256]`, constants left out."""
    return [_layer(line.strip()) for line in text.splitlines() if "LayerType: " in line]


def _layer(line: str) -> str:
    found = _LAYER.match(line)
    if found is None:
        return line[:_KEPT_CHARACTERS]
    inputs, _, rest = found["rest"].partition("Outputs: ")
    outputs = re.split(r"\], (?:TacticName|TacticValue|StreamId|ParameterType|Tactic)", rest, maxsplit=1)[0]
    taken = _tensors(inputs.partition("Constants: ")[0])
    return f"{found['kind']} {found['name']}: {taken} -> {_tensors(outputs)}"


def _tensors(text: str) -> str:
    found = ((name, f"{dtype.strip()}{dims}") for name, dims, dtype in _TENSOR.findall(text))
    return ", ".join(kind if name.startswith(_UNNAMED) else f"{name} {kind}" for name, kind in found)


def make_logger(trt: Any, log: BuildLog) -> Any:
    """A logger of the library that speaks to `log`."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            log.hear(severity.name, text)

    return Logger()
