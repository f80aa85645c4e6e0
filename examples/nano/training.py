"""What every training run here shares: it logs, saves often, and goes on where it was stopped."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import team
import torch
from muon import optimizers
from torch import Tensor, nn

SAVE_EVERY_S = 180
AVERAGE = 0.998
FALL = 0.4
"""Share of the steps in which the rate falls to nothing. Until then it is constant: a run can be made longer."""


def parser(text: str | None, steps: int, rate: float) -> argparse.ArgumentParser:
    """The flags that every training has, with its own number of steps and rate."""
    p = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, help="folder of the run")
    p.add_argument("--steps", type=int, default=steps, help="in all, those of earlier calls included")
    p.add_argument("--rate", type=float, default=rate, help="of learning")
    p.add_argument("--workers", type=int, default=1, help="processes; each takes a batch of its own in every step")
    return p


class Run:
    """One network in training, in a folder: `state.pt` to resume from, `log.jsonl`, and the averaged weights.

    The seed of a step follows from its number, so a run that was stopped sees the data that it would have seen.
    """

    def __init__(self, folder: Path, network: nn.Module, *, steps: int, rate: float, warmup: int = 50) -> None:
        self.folder, self.network, self.steps, self.rate, self.warmup = folder, network, steps, rate, warmup
        self.optimizers = optimizers(network, rate)
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.step, self.seconds = 0, 0.0
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "state.pt").is_file():
            state = torch.load(folder / "state.pt", weights_only=True)
            network.load_state_dict(state["network"])
            for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(kept)
            self.average, self.step, self.seconds = state["average"], state["step"], state["seconds"]

    def train(self, loss_of: Callable[[int], tuple[Tensor, dict[str, float]]], *, log_every: int = 50) -> None:
        """Take all steps that are left; `loss_of(number)` gives the loss of a batch and numbers for the log."""
        saved = started = time.monotonic()
        rows: list[dict[str, float]] = []
        while self.step < self.steps:
            loss, numbers = loss_of(self.step * team.size() + team.rank())
            self._descend(loss)
            self.step += 1
            rows.append(numbers | {"loss": loss.item()})
            now = time.monotonic()
            if self.step % log_every == 0 and team.rank() == 0:
                self._log(rows, now - started)
                rows = []
            if team.rank() == 0 and (now - saved > SAVE_EVERY_S or self.step == self.steps):
                self.save(now - started)
                saved = now

    def _descend(self, loss: Tensor) -> None:
        """One step of both optimizers; none where the gradient is not finite."""
        self.network.zero_grad(set_to_none=True)
        (loss / team.size()).backward()  # type: ignore[no-untyped-call]
        team.add_up([p.grad for p in self.network.parameters() if p.grad is not None])
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        if not torch.isfinite(norm):
            return
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate_at(self.step)
            optimizer.step()
        self._follow()

    def save(self, since_s: float) -> None:
        """Write all that is needed to go on; a file is complete or not there."""
        state = {
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average,
            "step": self.step,
            "seconds": self.seconds + since_s,
        }
        part = self.folder / "state.part"
        torch.save(state, part)
        os.replace(part, self.folder / "state.pt")

    def rate_at(self, step: int) -> float:
        """A short rise, a plain, and a straight fall to nothing at the end."""
        left = (self.steps - step) / max(1.0, FALL * self.steps)
        return self.rate * min(1.0, (step + 1) / self.warmup, left)

    def _follow(self) -> None:
        decay = min(AVERAGE, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - decay)

    def _log(self, rows: list[dict[str, float]], since_s: float) -> None:
        numbers = {name: round(sum(row[name] for row in rows) / len(rows), 5) for name in rows[0]}
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": self.step, "seconds": round(self.seconds + since_s, 1)} | numbers) + "\n")
