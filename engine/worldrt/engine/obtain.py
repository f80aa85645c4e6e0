"""A plan for a job: from the cache, or built into it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from worldrt.engine.build import Progress, build_plan
from worldrt.engine.cache import PlanCache
from worldrt.engine.errors import BackendError, CheckpointError
from worldrt.engine.locks import Hold
from worldrt.engine.plan_key import PlanKey, plan_key
from worldrt.engine.plans import BuildJob, BuildReport
from worldrt.engine.record import Entry, damage


@dataclass(frozen=True)
class Plan:
    """A sound plan. `seconds` is what it took to obtain; `report` is of its build, whenever that was.

    While this object lives, or until `hold.release()`, the plan is not removed to keep the cache within its limit.
    """

    path: Path
    key: PlanKey
    hit: bool
    seconds: float
    report: BuildReport
    hold: Hold = field(repr=False, compare=False)


def obtain_plan(
    job: BuildJob,
    cache: PlanCache,
    *,
    library_version: str,
    progress: Progress | None = None,
    build: Callable[..., BuildReport] | None = None,
) -> Plan:
    """The plan of a job. A sound one in the cache is a hit; else it is built by one process while others wait for it.

    `build` stands in for `worldrt.engine.build.build_plan`. A plan that is damaged, or that another one's record
    lies beside, is removed with a warning and built again. Raises what the builder raises, `BundleError` and
    `CheckpointError` for files that cannot be read, and `OutputError` for a cache that cannot be written.
    """
    started = time.perf_counter()
    key = plan_key(job, library_version, cache.hashes)
    try:
        plan = _found(cache, key, started)
        if plan is None:
            if progress is not None and cache.is_locked(key.digest):
                progress("waiting for another process that builds it", 0.0)
            with cache.lock(key.digest):
                plan = _found(cache, key, started) or _built(job, cache, key, progress, build, started)
        return plan
    finally:  # also where the build failed: reading all weights takes long
        cache.hashes.save()


def reject_plan(plan: Plan, cache: PlanCache, reason: str) -> None:
    """Remove a plan that the library refuses to load, with a warning: to be obtained again."""
    plan.hold.release()
    with cache.lock(plan.key.digest):
        cache.discard(plan.key.digest, reason)


def _found(cache: PlanCache, key: PlanKey, started: float) -> Plan | None:
    try:
        hold = Hold(cache.plan_path(key.digest))
    except OSError:
        return None
    entry = cache.find(key)
    if entry is None:
        hold.release()
        return None
    return _plan(entry, key, True, started, hold)


def _built(
    job: BuildJob,
    cache: PlanCache,
    key: PlanKey,
    progress: Progress | None,
    build: Callable[..., BuildReport] | None,
    started: float,
) -> Plan:
    """Build into the cache; the lock is held."""
    old = cache.entry(key.digest)
    if old is not None:
        cache.discard(key.digest, damage(old, key) or "it was found damaged")
    make = build or partial(build_plan, timing_cache=cache.timing_path(key))

    def make_checked(part: Path) -> BuildReport:
        report = make(job, part, progress=progress)
        if plan_key(job, key.library_version, cache.hashes) != key:
            raise CheckpointError(f"{job.path} or its weights in {job.weight_root} changed during the build; try again")
        return report

    entry = cache.put(key, job.name, make_checked)
    return _plan(entry, key, False, started, Hold(entry.plan))


def _plan(entry: Entry, key: PlanKey, hit: bool, started: float, hold: Hold) -> Plan:
    if entry.record is None:
        raise BackendError(f"{entry.plan}: its record was removed meanwhile; try again")
    return Plan(entry.plan, key, hit, time.perf_counter() - started, entry.record.report, hold)
