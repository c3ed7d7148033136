"""Heaps that the threads of the page share."""

import os
import subprocess
import sys

import pytest

from demo.memory import HEAPS, share_heaps


COUNT = f"""
import ctypes, threading
from demo.memory import share_heaps
assert share_heaps() is {{expected}}
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fdopen.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.malloc_info.argtypes = [ctypes.c_size_t], [ctypes.c_int, ctypes.c_void_p]
libc.fflush.argtypes = [ctypes.c_void_p]
wait = threading.Barrier({4 * HEAPS})
def work():
    libc.malloc(1000)
    wait.wait()  # all of them at once: heaps of threads that ended are taken again
threads = [threading.Thread(target=work) for _ in range({4 * HEAPS})]
[thread.start() for thread in threads], [thread.join() for thread in threads]
file = libc.fdopen(1, b"w")
libc.malloc_info(0, file), libc.fflush(file)
"""


def heaps(repository, expected: bool, **environment: str) -> int:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", COUNT.format(expected=expected)],
        cwd=repository,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.count("<heap nr=")


@pytest.mark.skipif(sys.platform != "linux", reason="heaps of threads are those of glibc")
def test_threads_share_heaps(repository):
    assert heaps(repository, True) <= HEAPS


@pytest.mark.skipif(sys.platform != "linux", reason="heaps of threads are those of glibc")
def test_what_a_deployer_sets_counts(repository):
    assert heaps(repository, False, MALLOC_ARENA_MAX="5") > HEAPS


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert share_heaps() is False
