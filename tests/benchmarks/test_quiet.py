"""Whether others used the machine: against processes that do, and children that are our own."""

import subprocess
import sys
import time

import pytest

from worldrt.benchmarks import quiet
from worldrt.benchmarks.quiet import Quiet, caution

SPIN = "import time; end = time.process_time() + 1\nwhile time.process_time() < end: pass"


def test_children_that_were_waited_for_are_own_work():
    since = Quiet.now()
    subprocess.run([sys.executable, "-c", SPIN], check=True)
    assert Quiet.now().own_s - since.own_s > 0.9


def test_what_children_leave_behind_is_own_work_once_it_has_ended():
    measure = f"""
import os, subprocess, sys, time
from worldrt.benchmarks import quiet
since = quiet.Quiet.now()
with quiet.adopting():
    subprocess.run(["sh", "-c", '"$0" "$@" & exit', sys.executable, "-c", {SPIN!r}], check=True)
    while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.05)
assert quiet.Quiet.now().own_s - since.own_s > 0.9
"""
    if sys.platform == "linux":
        subprocess.run([sys.executable, "-c", measure], check=True, timeout=60)


def test_processes_of_others_are_counted(tmp_path):
    if Quiet.now().all_s is None:
        pytest.skip("this system does not say what all use")
    done = tmp_path / "done"
    script = f"{SPIN}\nopen({str(done)!r}, 'w').close()"
    since, start = Quiet.now(), time.monotonic()
    subprocess.run(["sh", "-c", '"$0" -c "$1" &', sys.executable, script], check=True)  # nobody here waits for it
    while not done.exists() and time.monotonic() - start < 60:
        time.sleep(0.02)
    assert since.others() * (time.monotonic() - start) > 0.8


def test_time_of_the_whole_machine_leaves_out_rest_and_guests(tmp_path, monkeypatch):
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 4000 500 6 7 8 90 10\ncpu0 1 1 1\n")
    monkeypatch.setattr(quiet, "STAT", stat)
    monkeypatch.setattr(quiet.os, "sysconf", lambda name: 100)
    assert quiet._busy_s() == pytest.approx((100 + 20 + 30 + 6 + 7 + 8) / 100)
    monkeypatch.setattr(quiet, "STAT", tmp_path / "none")
    assert quiet._busy_s() is None and Quiet.now().others() is None


def test_only_a_busy_machine_is_said_to_be_one():
    assert caution(None, 2) == caution(0.1, 2) == ""
    assert "others used 0.8 of 2 cores" in caution(0.8, 2)
