"""One peer in its own process, JSON lines in and out: `python -m benchmarks.worker PEER FOLDER THREADS`."""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
from pathlib import Path


def main() -> None:
    name, folder, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr, not between the answers
    peer = importlib.import_module(f"benchmarks.peers.{name}").open(Path(folder), int(threads))
    print(json.dumps({"version": peer.version}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if request["call"] == "peak_bytes":
            result = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        else:
            result = getattr(peer, request["call"])(*request["args"])
        print(json.dumps({"result": result}), file=answers, flush=True)


if __name__ == "__main__":
    main()
