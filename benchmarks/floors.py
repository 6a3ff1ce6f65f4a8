"""What the machine can do at best: the read bandwidth that bounds every decode step."""

from __future__ import annotations

import ctypes
import threading
import time
from statistics import median

import numpy as np


def read_bandwidth(threads: int, *, megabytes: int = 1024, rounds: int = 5) -> float:
    """Bytes per second that `threads` plain read loops reach together, median of `rounds`.

    The loop is the C library's vectorised memchr over memory that holds no match; ctypes releases the GIL during it.
    """
    libc = ctypes.CDLL(None)
    libc.memchr.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    libc.memchr.restype = ctypes.c_void_p
    data = np.ones(megabytes << 20, np.uint8)
    share = data.nbytes // threads

    def once() -> float:
        workers = [
            threading.Thread(target=libc.memchr, args=(data.ctypes.data + i * share, 0, share)) for i in range(threads)
        ]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return share * threads / (time.perf_counter() - start)

    once()
    return median(once() for _ in range(rounds))
