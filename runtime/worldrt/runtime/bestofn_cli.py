"""`trt-run bestofn`: several videos of one request, judged by a critic, the best named."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from worldrt.engine.cli import USER_ERROR
from worldrt.engine.files import staged_file
from worldrt.runtime import flags, reason_flags, task_cli
from worldrt.runtime.bestofn import BestOfN, BestOfNRequest
from worldrt.runtime.candidates import RESULTS, Candidate, ranked, videos_in
from worldrt.runtime.generate import Generator
from worldrt.runtime.jobs import job_of
from worldrt.runtime.progress import Bars, Plain
from worldrt.runtime.report import plain

TASK = "video2world"


def run(args: argparse.Namespace) -> int:
    """Make, judge and rank; returns the exit code: 2 where the critic's answers gave no score at all."""
    return task_cli.shared(args, _run, TASK)


def _run(args: argparse.Namespace) -> int:
    flags.check(args)
    critic, job = reason_flags.make_critic(args), job_of(args)
    candidates: list[Candidate] = []
    generator = None if args.skip_generation else _generator(args)
    with BestOfN(generator, critic, Plain if args.quiet or args.json else Bars) as best:
        if args.skip_generation:
            videos = videos_in(Path(args.save_path))
            judged = best.judge(videos, args.num_critic_trials, args.seed, overwrite=args.overwrite)
        else:
            wanted = BestOfNRequest(job, args.num_generations, args.num_critic_trials)
            judged = best(wanted, overwrite=args.overwrite)
        for candidate in judged:
            candidates.append(candidate)
            if not args.json:
                names = plain(candidate.video.name), plain(candidate.report.name)
                print(f"{names[0]}: {_score(candidate)}; {names[1]}", flush=True)
    _finish(args, ranked(candidates))
    return 0 if any(candidate.score is not None for candidate in candidates) else USER_ERROR


def _generator(args: argparse.Namespace) -> Generator:
    return task_cli.make_generator(argparse.Namespace(**{**vars(args), "verb": TASK}))


def _finish(args: argparse.Namespace, order: list[Candidate]) -> None:
    """Write and print the ranking."""
    best = next((str(candidate.video) for candidate in order if candidate.score is not None), None)
    ranking = {"best": best, "candidates": [candidate.as_json() for candidate in order]}
    with staged_file(Path(args.save_path) / RESULTS, overwrite=True) as part:
        part.write_text(json.dumps(ranking, indent=1) + "\n", encoding="utf-8")
    if args.json:
        print(json.dumps(ranking, indent=1))
        return
    print()
    for place, candidate in enumerate(order, 1):
        mark = "  <- best" if str(candidate.video) == best else ""
        print(f"{place:3}. {_score(candidate):>28}  {plain(candidate.video.name)}{mark}")
    print(
        f"best: {plain(best)}" if best else "no score: nothing that the critic answered was understood; see the reports"
    )


def _score(candidate: Candidate) -> str:
    if candidate.score is None:
        return f"no score (0 of {candidate.trials} understood)"
    return f"{candidate.score:.0%} ({candidate.sound} of {candidate.understood} found nothing)"
