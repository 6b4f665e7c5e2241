"""ONNX Runtime called in one process with nothing around it. Run by its path; reads ``ROWS SECONDS CALLS`` line by line.

It calls for so many seconds, or so many times if ``CALLS`` is not 0, and prints what it saw as JSON. Arguments: the model, and
a file with one row.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
import onnxruntime as ort


def main(model: str, file: str) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    row = np.load(file)
    names = [output.name for output in session.get_outputs()]
    (given,) = session.get_inputs()
    for line in sys.stdin:
        rows, seconds, calls = line.split()
        feed = {given.name: np.repeat(row, int(rows), axis=0)}
        session.run(names, feed)
        times: list[float] = []
        before, started = time.process_time(), time.perf_counter()
        last = started
        while len(times) < int(calls) if int(calls) else last - started < float(seconds):
            session.run(names, feed)
            now = time.perf_counter()
            times.append(now - last)
            last = now
        used = time.process_time() - before
        times.sort()
        requests = len(times) * int(rows)
        p50, p99 = statistics.median(times), times[int(len(times) * 0.99)]
        said = {"requests": requests, "seconds": last - started, "errors": 0, "p50": p50, "p99": p99}
        print(json.dumps({**said, "cpu_us": used / requests * 1e6}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:3])
