"""The keys of a terminal, through a pseudo-terminal: what is pressed steers, and it is given back as it was."""

from __future__ import annotations

import contextlib
import os
import termios
import threading
import time

import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime.live.keyboard import Keyboard, keys_in


@pytest.fixture
def terminal():
    """The end of a person, and that of the program."""
    person, program = os.openpty()
    yield person, program
    for fd in (person, program):
        with contextlib.suppress(OSError):
            os.close(fd)


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_keys_steer_and_are_let_go_and_q_ends(terminal):
    person, program = terminal
    told = []
    before = termios.tcgetattr(program)
    with Keyboard(told.append, program, hold_s=0.2) as keyboard:
        assert termios.tcgetattr(program)[3] & (termios.ICANON | termios.ECHO) == 0
        assert termios.tcgetattr(program)[3] & termios.ISIG, "Ctrl-C is still Ctrl-C"
        os.write(person, b"w")
        until(lambda: told == ["D", None])
        os.write(person, b"\x1b[D")
        until(lambda: told[2:] == ["DL", None])
        assert not keyboard.ended
        os.write(person, b"q")
        until(lambda: keyboard.ended)
    assert termios.tcgetattr(program) == before


def test_of_opposite_keys_the_newer_one_counts_and_the_space_bar_lets_go(terminal):
    person, program = terminal
    told = []
    with Keyboard(told.append, program, hold_s=60):
        for keys, expected in ((b"wa", "DL"), (b"s", "BL"), (b"d", "BR"), (b" ", None)):
            os.write(person, keys)
            until(lambda expected=expected: told[-1:] == [expected])


def test_an_error_gives_the_terminal_back_and_leaves_no_thread(terminal):
    _, program = terminal
    before, threads = termios.tcgetattr(program), threading.active_count()
    with pytest.raises(KeyboardInterrupt), Keyboard(lambda control: None, program):
        raise KeyboardInterrupt
    assert termios.tcgetattr(program) == before and threading.active_count() == threads


def test_a_terminal_that_is_gone_ends_it(terminal):
    person, program = terminal
    keyboard = Keyboard(lambda control: None, program)
    with keyboard:
        os.close(person)
        until(lambda: keyboard.ended)


def test_what_is_no_terminal_is_refused():
    read, write = os.pipe()
    with pytest.raises(InputError, match="no terminal"):
        Keyboard(lambda control: None, read)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    "text, keys",
    (("wASd q", ["W", "A", "S", "D", " ", "Q"]), ("\x1b[A\x1bOB", ["W", "S"]), ("\x1b[1;5C", ["D"]),
     ("\x1b[3~w", ["W"]), ("\x1b", []), ("\x1b[", []), ("\u00e4x\n", [])),
)  # fmt: skip
def test_what_a_terminal_sends_is_read(text, keys):
    assert keys_in(text) == keys
