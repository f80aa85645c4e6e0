"""A rank that dies, stops, hangs or fails ends the run: with its name, soon, and with no process left."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from worldrt.engine.errors import RankError
from worldrt.runtime.parallel.guest import Guest
from worldrt.runtime.parallel.host import Host
from worldrt.runtime.parallel.meeting import LOOPBACK, Meeting, join
from worldrt.runtime.parallel.pulse import Pulse, missing

TOY = Path(__file__).parents[2] / "fakes" / "ranks.py"
DEADLINE_S = 300.0


def ended(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def run_toy(folder: Path, size: int, what: str, victim: int) -> tuple[int, str]:
    command = [sys.executable, str(TOY), str(size), str(folder), what, str(victim)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    pids = [int((folder / str(rank)).read_text()) for rank in range(size)]
    end = time.monotonic() + DEADLINE_S
    while not all(ended(pid) or (what == "stopped" and rank == victim == 0) for rank, pid in enumerate(pids)):
        assert time.monotonic() < end, "a process stayed behind"
        time.sleep(0.1)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("what", "victim", "said"),
    [
        ("killed", 1, "rank 0 hears: rank 1 is gone: its process has ended"),
        pytest.param("killed", 0, "rank 1 hears: rank 0 is gone: its process has ended", marks=pytest.mark.slow),
        pytest.param("stopped", 1, "rank 0 hears: rank 1 is missing: nothing has been heard", marks=pytest.mark.slow),
        pytest.param("stuck", 1, "rank 0 hears: rank 1 is missing: others have waited", marks=pytest.mark.slow),
        pytest.param("failed", 1, "rank 0 hears: rank 1: the disk is on fire", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_is_lost_ends_the_run_with_its_name(tmp_path, what, victim, said):
    code, words = run_toy(tmp_path, 2, what, victim)
    assert code != 0
    assert said in words


@pytest.mark.slow
@pytest.mark.parametrize("victim", range(4))
def test_any_of_four_ranks_may_be_killed(tmp_path, victim):
    code, words = run_toy(tmp_path, 4, "killed", victim)
    assert code != 0
    assert f"rank {victim} is gone" in words


def test_ranks_that_all_do_their_part_end_well(tmp_path):
    assert run_toy(tmp_path, 2, "nothing", 1) == (0, "")


WAITS = Pulse(begun=5, waits_s=9.0, busy=False)


@pytest.mark.parametrize(
    ("pulses", "silent", "found"),
    [
        ([WAITS, Pulse(4, busy=False)], [0, 0], 1),
        ([WAITS, Pulse(4, busy=True)], [0, 0], None),  # it loads: nobody counts
        ([WAITS, Pulse(5, busy=False)], [0, 0], None),  # it has been there
        ([WAITS, Pulse(4, waits_s=1.0, busy=False), Pulse(3, busy=False)], [0, 0, 0], 2),  # who waits is not stuck
        ([WAITS, Pulse(4, busy=False, gap_s=4.0)], [0, 0], None),  # slow machines take as long as they take
        ([Pulse(5, 6.0, False), Pulse(4, busy=False)], [0, 0], None),
        ([Pulse(), Pulse(), Pulse(busy=False)], [50, 0, 8], 2),
        ([Pulse(), Pulse()], [0, 61], 1),
        ([Pulse(busy=False), Pulse(busy=False)], [0, 6], None),
    ],
)
def test_the_rank_that_holds_up_the_others_is_found(pulses, silent, found):
    result = missing(pulses, silent, 7.0)
    assert (result and result[0]) == found


def pair(limit_s: float) -> tuple[Host, Guest]:
    meeting, hosts = Meeting(2, "secret"), []
    thread = threading.Thread(target=lambda: hosts.append(meeting.hold(limit_s=limit_s)))
    thread.start()
    guest = join(1, 2, LOOPBACK, meeting.port, "secret", limit_s=limit_s)
    thread.join(60)
    return hosts[0], guest


def failure_of(control) -> str:
    with control.changed:
        assert control.changed.wait_for(lambda: control.failure is not None, 60)
    with pytest.raises(RankError):
        control.check()
    return control.failure


def test_a_rank_that_does_not_come_to_a_collective_is_named_to_all():
    host, guest = pair(limit_s=3)
    called = threading.Event()
    guest.on_failure.append(called.set)
    for control in (host, guest):
        control.progress.ready()
    host.progress.enter()
    for control in (host, guest):
        assert failure_of(control).startswith("rank 1 is missing: ")
    assert called.wait(60)
    host.close()
    guest.close()


def test_a_failure_that_one_rank_tells_of_is_heard_by_all():
    host, guest = pair(60)
    guest.fail("rank 1: no more paper")
    assert failure_of(host) == failure_of(guest) == "rank 1: no more paper"
    host.close()
    guest.close()


def test_ranks_that_leave_at_the_end_are_not_missed():
    host, guest = pair(60)
    leaves = threading.Thread(target=host.close)
    leaves.start()
    assert guest.next_order() is None
    guest.close()
    leaves.join(60)
    assert host.failure is guest.failure is None


def test_strangers_are_not_let_in_and_those_who_stay_away_are_named():
    meeting = Meeting(3, "secret")
    results: list[object] = []

    def stranger() -> None:
        try:
            join(1, 3, LOOPBACK, meeting.port, "guess")
        except RankError as error:
            results.append(error)

    thread = threading.Thread(target=stranger)
    thread.start()
    with pytest.raises(RankError, match="rank 1, 2: it has not joined the run within 2 s"):
        meeting.hold(join_s=2)
    thread.join(60)
    assert len(results) == 1
    with pytest.raises(RankError, match="rank 1: rank 0 cannot be reached"):
        join(1, 3, LOOPBACK, meeting.port, "secret")


def test_a_child_that_ends_before_it_joins_is_named():
    code = "import sys; from worldrt.runtime.parallel.launch import Place, joined\n"
    code += "with joined(Place(0, 2, 0, 2, True), [sys.executable, '-c', 'raise SystemExit(7)'], 60): pass"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_S)
    assert "rank 1: its process has ended (exit code 7) before it joined" in done.stderr
    assert done.returncode != 0


def test_the_environment_of_torchrun_is_believed_and_checked():
    from worldrt.engine.errors import InputError
    from worldrt.runtime.parallel.launch import Place, place

    names = {"MASTER_ADDR": "here", "MASTER_PORT": "1", "RANK": "3", "WORLD_SIZE": "8"}
    assert place(8, {**names, "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}) == Place(3, 8, 1, 2, own=False)
    assert place(2, {"RANK": "3"}) == Place(0, 2, 0, 2, own=True)
    with pytest.raises(InputError, match="torchrun has started 8 process.*--nproc_per_node=2"):
        place(2, names)
    with pytest.raises(InputError, match="say --num_gpus 8"):
        place(1, names)
    with pytest.raises(InputError, match="damaged"):
        place(8, names | {"RANK": "x"})
    assert os.environ.get("RANK") is None
