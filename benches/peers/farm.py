"""What River's calls and farms are held against: the same exchange with Python's own libraries.

    pip install -r benches/peers/requirements.txt
    python3 benches/peers/farm.py PEER

Prints one line of JSON. `tasks`: 100,000 trivial tasks on two workers, a second, one task a message and in chunks.
`call`: one synchronous call of a function that adds one, there and back, in microseconds. `mib1`, `mib64`: so many
mebibytes there and back, in milliseconds. What a library cannot do is left out. Each number is the best of ROUNDS.
"""

import json
import multiprocessing
import subprocess
import sys
import time

TASKS = 100_000
CALLS = 2_000
ROUNDS = 3


def add_one(x):
    return x + 1


def echo(x):
    return x


def best(measure):
    return min(measure() for _ in range(ROUNDS))


def seconds(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def synchronous(call):
    """Microseconds per call."""
    for i in range(100):
        call(i)
    return best(lambda: seconds(lambda: [call(i) for i in range(CALLS)])) / CALLS * 1e6


def blobs(call, wrap=bytes):
    """Milliseconds there and back."""
    one, many = wrap(bytes(1 << 20)), wrap(bytes(64 << 20))
    call(one)
    return {"mib1": best(lambda: seconds(lambda: call(one))) * 1e3, "mib64": best(lambda: seconds(lambda: call(many))) * 1e3}


def rate(run, tasks=TASKS):
    """Tasks per second."""
    return tasks / best(lambda: seconds(lambda: run(range(tasks))))


def peer_multiprocessing():
    with multiprocessing.Pool(2) as pool:
        yield "tasks", rate(lambda work: list(pool.imap_unordered(add_one, work, 1)))
        yield "chunked", rate(lambda work: pool.map(add_one, work))
        yield "call", synchronous(lambda i: pool.apply(add_one, (i,)))
        yield from blobs(lambda x: pool.apply(echo, (x,))).items()


def peer_joblib():
    from joblib import Parallel, delayed

    with Parallel(n_jobs=2, batch_size=1) as parallel:
        parallel(delayed(add_one)(i) for i in range(10))
        yield "tasks", rate(lambda work: parallel(delayed(add_one)(i) for i in work), 5_000)
    with Parallel(n_jobs=2) as parallel:
        parallel(delayed(add_one)(i) for i in range(10))
        yield "chunked", rate(lambda work: parallel(delayed(add_one)(i) for i in work))


def peer_pyro5():
    import Pyro5.api

    code = (
        "import Pyro5.api, sys\n"
        "@Pyro5.api.expose\n"
        "class Server:\n"
        "    def add_one(self, x): return x + 1\n"
        "daemon = Pyro5.api.Daemon()\n"
        "print(daemon.register(Server()), flush=True)\n"
        "daemon.requestLoop()\n"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        with Pyro5.api.Proxy(server.stdout.readline().strip()) as proxy:
            yield "call", synchronous(proxy.add_one)
    finally:
        server.kill()


def peer_rpyc():
    import rpyc

    code = (
        "import rpyc\n"
        "from rpyc.utils.server import ThreadedServer\n"
        "class Service(rpyc.Service):\n"
        "    def exposed_add_one(self, x): return x + 1\n"
        "    def exposed_echo(self, x): return x\n"
        "server = ThreadedServer(Service, hostname='127.0.0.1', port=0)\n"
        "print(server.port, flush=True)\n"
        "server.start()\n"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        connection = rpyc.connect("127.0.0.1", int(server.stdout.readline()))
        yield "call", synchronous(connection.root.add_one)
        yield from blobs(connection.root.echo).items()
    finally:
        server.kill()


def peer_dask():
    from dask.distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        yield "tasks", rate(lambda work: client.gather(client.map(add_one, work, pure=False)), 5_000)
        yield "call", synchronous(lambda i: client.submit(add_one, i, pure=False).result())
        yield from blobs(lambda x: client.submit(echo, x, pure=False).result()).items()


def peer_ipyparallel():
    import ipyparallel

    with ipyparallel.Cluster(n=2) as clients:
        view = clients.load_balanced_view()
        yield "tasks", rate(lambda work: view.map_sync(add_one, work, chunksize=1), 2_000)
        yield "call", synchronous(lambda i: clients[0].apply_sync(add_one, i))
        yield from blobs(lambda x: clients[0].apply_sync(echo, x)).items()


def peer_ray():
    import numpy
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    task = ray.remote(add_one)
    yield "tasks", rate(lambda work: ray.get([task.remote(i) for i in work]), 10_000)

    class Actor:
        def add_one(self, x):
            return x + 1

        def echo(self, x):
            return x

    actor = ray.remote(Actor).remote()
    yield "call", synchronous(lambda i: ray.get(actor.add_one.remote(i)))
    yield from blobs(lambda x: ray.get(actor.echo.remote(x)), lambda x: numpy.frombuffer(x, numpy.uint8)).items()
    ray.shutdown()


PEERS = {name.removeprefix("peer_"): peer for name, peer in list(globals().items()) if name.startswith("peer_")}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PEERS:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(PEERS)}")
    try:
        print(json.dumps(dict(PEERS[sys.argv[1]]())))
    except ImportError as error:
        sys.exit(f"not installed: {error.name}")
