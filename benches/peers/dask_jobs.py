"""The benchmark's jobs in Dask, two processes: dask_jobs.py wordcount DIRECTORY | dask_jobs.py sort FILE OUTPUT.

Prints the seconds of the job and waits for its standard input to end, so that the memory of its processes can be read.
"""

import os
import sys
import time

import dask.bag
import dask.dataframe
import pandas
from distributed import Client, LocalCluster


def records(at):
    path, offset, count = at
    with open(path, "rb") as file:
        file.seek(offset * 100)
        data = file.read(count * 100)
    rows = [data[i : i + 100] for i in range(0, len(data), 100)]
    return pandas.DataFrame({"key": [row[:10].hex() for row in rows], "value": [row[10:].decode("latin1") for row in rows]})


def main():
    # As for River, whatever has to be started is up before the clock starts, and stays until its memory was read.
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None)
    client = Client(cluster)
    client.submit(sum, [1, 2]).result()
    start = time.perf_counter()
    if sys.argv[1] == "wordcount":
        files = [os.path.join(at, name) for at, _, names in os.walk(sys.argv[2]) for name in names]
        bag = dask.bag.read_text(files, blocksize=32 << 20, encoding="utf-8")
        result = len(bag.str.split().flatten().frequencies(split_every=8).compute())
    else:
        count = os.path.getsize(sys.argv[2]) // 100
        step = max(count // 16, 1)
        pieces = [(sys.argv[2], at, min(step, count - at)) for at in range(0, count, step)]
        frame = dask.dataframe.from_map(records, pieces)
        frame.sort_values("key").to_parquet(sys.argv[3])
        result = 0
    print(f"measured {time.perf_counter() - start} {result}", flush=True)
    sys.stdin.read()
    client.close()
    cluster.close()


if __name__ == "__main__":
    main()
