"""One motion correction as a worker does it, in a process of its own: prints what it took.

`python -m tests.bench.motiontask REQUEST FOLDER THREADS`.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch

from services.prep.tasks import motioncorr


def main(request: str, folder: str, threads: str) -> None:
    """Correct once more than is measured: a worker has its code loaded."""
    torch.set_num_threads(int(threads))
    data, out = Path(request).read_bytes(), Path(folder)
    motioncorr(data, out, out)
    wall, spent = time.perf_counter(), time.process_time()
    motioncorr(data, out, out)
    taken = {
        "wall_s": time.perf_counter() - wall,
        "processor_s": time.process_time() - spent,
        "peak_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(taken))


if __name__ == "__main__":
    main(*sys.argv[1:])
