"""What is measured: Fairway as it is started by its command, the limits, and the peers."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

import fairway
from benchmarks.serving.answers import check_grpc, check_rest
from benchmarks.serving.environments import PEERS, environment
from benchmarks.serving.start import Ports
from benchmarks.serving.workloads import Workload

QUIET = "[serve]\naccess_log = false\n"
_PROTOS = Path(fairway.__file__).parent / "serving" / "transports" / "grpc" / "protos" / "descriptors.binpb"


class Contestant(msgspec.Struct, frozen=True):
    """A server. ``wires``: what is spoken, and the path that is asked, where it is not V2's.

    ``files`` lie in the folder that it is started in. A ``constant`` one answers the same to everything, so it is not checked.
    """

    name: str
    command: Callable[[Workload, Ports], list[str]]
    wires: tuple[str, ...] = ("json",)
    path: str = ""
    files: Callable[[Workload, Ports], dict[str, str]] = lambda _workload, _ports: {}
    constant: bool = False

    def rest_path(self, workload: Workload) -> str:
        """What is asked of it over HTTP/1.1."""
        return self.path or workload.path

    def wrong(self, workload: Workload, ports: Ports, wire: str) -> str:
        """What is wrong with its answer; empty if nothing is."""
        if wire == "grpc":
            problem, size = check_grpc(workload, ports.grpc_port)
            return "" if self.constant and size else problem
        return check_rest(workload, ports.port, self.rest_path(workload), wire)


# -- Fairway


def of_fairway(name: str, toml: str, wires: tuple[str, ...], *bundles: str) -> Contestant:
    """``fairway serve`` with a fairway.toml; ``bundles`` besides the workload's own."""

    def command(workload: Workload, ports: Ports) -> list[str]:
        grpc = ["--grpc-port", str(ports.grpc_port)] if "grpc" in wires else []
        served = [] if "[registry]" in toml else [str(workload.bundle.path), *bundles]
        return [sys.executable, "-m", "fairway", "serve", "--port", str(ports.port), *grpc, *served]

    return Contestant(name, command, wires, files=lambda _workload, _ports: {"fairway.toml": toml})


def fairway_variants(registry: str, collector: str) -> list[Contestant]:
    """What can be turned on, each beside Fairway without it, and all of it. Traces are of one request in 1000, the default."""
    traced = f'tracing = "{collector}"\n'
    return [
        of_fairway("fairway, access log", "", ("json",)),
        of_fairway("fairway, traced", QUIET + traced, ("json",)),
        of_fairway("fairway, watched for drift", QUIET + registry, ("json",)),
        of_fairway("fairway, all of these", f"[serve]\n{traced}{registry}", ("json",)),
    ]


WITHOUT_LANE = of_fairway("fairway, Starlette only", QUIET + "fast_lane = false\n", ("json",))


# -- limits


def _peer(python: str, file: str, *more: str, batches: bool = True) -> Callable[[Workload, Ports], list[str]]:
    def command(workload: Workload, ports: Ports) -> list[str]:
        told = (
            workload.served_as,
            workload.max_batch if batches else 1,
            ports.port,
            ports.grpc_port,
            ports.metrics_port,
        )
        return [python, str(PEERS / file), str(workload.model), *map(str, told), *more]

    return command


PROBE = Contestant("bare httptools probe", _peer(sys.executable, "probe.py"))
GRPC_BARE = Contestant("grpc.aio bare", _peer(sys.executable, "grpc_app.py", str(_PROTOS)), ("grpc",))
GRPC_CONSTANT = Contestant(
    "grpc.aio answering a constant",
    _peer(sys.executable, "grpc_app.py", str(_PROTOS), "constant"),
    ("grpc",),
    constant=True,
)


def nginx() -> Contestant | str:
    """nginx answering a constant of an answer's size, or why not."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        return "nginx is not installed (Debian: nginx-light)"

    def files(workload: Workload, ports: Ports) -> dict[str, str]:
        output = {"name": "y", "datatype": "FP32", "shape": [1, workload.expected.size]}
        said = {"model_name": workload.served_as, "outputs": [{**output, "data": workload.expected.tolist()}]}
        answer = msgspec.json.encode(said).decode()
        return {"nginx.conf": _NGINX.format(port=ports.port, answer=answer)}

    return Contestant(
        "nginx answering a constant", lambda _workload, _ports: [program, "-p", ".", "-c", "nginx.conf"], files=files
    )


_NGINX = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 256; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  client_max_body_size 64m;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{ default_type application/json; return 200 '{answer}'; }}
  }}
}}
"""


# -- peers


class Peer(msgspec.Struct, frozen=True):
    """One of the field's servers: its file in ``benchmarks/peers``, its package, and what it speaks of V2.

    Not ``batches``: where waiting for a batch costs a small model more than it gains, so that each stands there at its best.
    """

    name: str
    file: str
    package: str
    wires: tuple[str, ...] = ("json",)
    path: str = ""
    batches: bool = True

    def contestant(self) -> Contestant | str:
        """It, installed; or why not."""
        python, reason = environment(self.file)
        if python is None:
            return reason
        command = _peer(python, f"{self.file}_app.py", batches=self.batches)
        return Contestant(self.name, command, self.wires, self.path)


PEER_LIST: Sequence[Peer] = (
    Peer("FastAPI by hand", "fastapi", "fastapi"),
    Peer("mosec", "mosec", "mosec"),
    Peer("mosec, no batches", "mosec", "mosec", batches=False),
    Peer("LitServe", "litserve", "litserve"),
    Peer("LitServe, no batches", "litserve", "litserve", batches=False),
    Peer("MLServer", "mlserver", "mlserver", ("json", "grpc")),
    Peer("MLServer, no batches", "mlserver", "mlserver", batches=False),
    Peer("BentoML", "bentoml", "bentoml", ("arrays",), "/infer"),
    Peer("KServe", "kserve", "kserve", ("json", "binary", "grpc")),
    Peer("Triton, Python backend", "triton", "nvidia-pytriton", ("json", "binary", "grpc")),
)
