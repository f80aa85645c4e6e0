"""Many graphs, side by side in worker processes where that helps."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from worldrt.export import forks
from worldrt.export.job import Done, Job, make_segment, run_job, segments_of
from worldrt.export.link import Traced, read_segment


def run_jobs(jobs: Sequence[Job], workers: int, started: Callable[[str], None]) -> list[Done]:
    """Run all, in this process or (`workers` > 1) in others; the results are in the order of the jobs.

    `started` is called with the name of a graph when it is begun, or with workers when it is made.
    """
    if workers <= 1 or len(jobs) <= 1:
        traced: Traced = {}
        return [_announced(job, started, traced) for job in jobs]
    with _children_end(), ProcessPoolExecutor(workers, mp_context=forks.context()) as pool:
        return _side_by_side(jobs, pool, started)


def _side_by_side(jobs: Sequence[Job], pool: Executor, started: Callable[[str], None]) -> list[Done]:
    """Workers make whole graphs, and the segments of deep ones, each segment once; this process links those."""
    keys = {job.name: [] if job.save_program else [s.key for s in segments_of(job)] for job in jobs}
    segments: dict[Hashable, Future[tuple[bytes, int | None]]] = {}
    for job in jobs:
        for key in keys[job.name]:
            if key not in segments:
                segments[key] = pool.submit(make_segment, job, key)
    whole = {pool.submit(run_job, job): job for job in jobs if not keys[job.name]}
    names: dict[Future[Any], str] = {future: job.name for future, job in whole.items()}
    futures: list[Future[Any]] = [*segments.values(), *whole]
    for future in as_completed(futures):
        future.result()  # the error of any ends all
        if future in names:
            started(names[future])
    made = {job.name: future.result() for future, job in whole.items()}
    peaks = [peak for _, peak in (future.result() for future in segments.values()) if peak is not None]
    traced = {key: read_segment(future.result()[0]) for key, future in segments.items()}
    for job in jobs:
        if job.name not in made:
            done = _announced(job, started, traced)
            made[job.name] = replace(done, peak_rss_bytes=max([*peaks, done.peak_rss_bytes or 0]) or None)
    return [made[job.name] for job in jobs]


def _announced(job: Job, started: Callable[[str], None], traced: Traced) -> Done:
    started(job.name)
    return run_job(job, traced)


@contextmanager
def _children_end() -> Iterator[None]:
    """On an error or an interruption, end the workers at once instead of waiting for what they do."""
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
