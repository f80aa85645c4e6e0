"""What every training run here shares: it logs, saves often, and goes on where it was stopped."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

SAVE_EVERY_S = 180
AVERAGE = 0.999


class Run:
    """One network in training, in a folder: `state.pt` to resume from, `log.jsonl`, and the averaged weights.

    The seed of a step follows from its number, so a run that was stopped sees the data that it would have seen.
    """

    def __init__(self, folder: Path, network: nn.Module, *, steps: int, rate: float, warmup: int = 200) -> None:
        self.folder, self.network, self.steps, self.rate, self.warmup = folder, network, steps, rate, warmup
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01)
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.step, self.seconds = 0, 0.0
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "state.pt").is_file():
            state = torch.load(folder / "state.pt", weights_only=True)
            network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average, self.step, self.seconds = state["average"], state["step"], state["seconds"]

    def train(self, loss_of: Callable[[int], tuple[Tensor, dict[str, float]]], *, log_every: int = 50) -> None:
        """Take all steps that are left; `loss_of(step)` gives the loss and numbers for the log."""
        saved = started = time.monotonic()
        sums: dict[str, float] = {}
        while self.step < self.steps:
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate()
            loss, numbers = loss_of(self.step)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            if torch.isfinite(norm):
                self.optimizer.step()
                self._follow()
            self.step += 1
            for name, value in (numbers | {"loss": loss.item()}).items():
                sums[name] = sums.get(name, 0.0) + value
            now = time.monotonic()
            if self.step % log_every == 0:
                self._log({name: value / log_every for name, value in sums.items()}, now - started)
                sums = {}
            if now - saved > SAVE_EVERY_S or self.step == self.steps:
                self.save(now - started)
                saved = now

    def save(self, since_s: float) -> None:
        """Write all that is needed to go on; a file is complete or not there."""
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "seconds": self.seconds + since_s,
        }
        part = self.folder / "state.part"
        torch.save(state, part)
        os.replace(part, self.folder / "state.pt")

    def _rate(self) -> float:
        """A short rise, then half a cosine down to a twentieth."""
        if self.step < self.warmup:
            return self.rate * (self.step + 1) / self.warmup
        share = (self.step - self.warmup) / max(1, self.steps - self.warmup)
        return self.rate * (0.05 + 0.95 * (1 + math.cos(math.pi * min(1.0, share))) / 2)

    def _follow(self) -> None:
        decay = min(AVERAGE, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - decay)

    def _log(self, numbers: dict[str, float], since_s: float) -> None:
        row = {"step": self.step, "seconds": round(self.seconds + since_s, 1)}
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(row | {name: round(value, 5) for name, value in numbers.items()}) + "\n")
