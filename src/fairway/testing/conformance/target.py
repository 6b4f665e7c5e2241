"""The server under test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import httpx

from fairway.testing.conformance.case import Case, NotOffered, Unmet, expect_equal
from fairway.testing.conformance.tensors import Tensor, from_bytes, from_json, join, tensor
from fairway.testing.conformance.wire import Connection, Reply, connected

if TYPE_CHECKING:
    from fairway.testing.conformance.rpc import Rpc

HEADER_LENGTH = "inference-header-content-length"
_SHOWN = 300


@dataclass(frozen=True)
class Info:
    """A model, as its metadata tell."""

    name: str
    versions: tuple[str, ...]
    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...]

    def sample(self) -> list[Tensor]:
        """One tensor for each input: zeros, and 1 for every size that is free."""
        return [_zeros(spec) for spec in self.inputs]


class Target:
    """A server that speaks the Open Inference Protocol.

    Parameters
    ----------
    url : str
        Of its REST side, such as ``http://127.0.0.1:8000``.
    grpc : str, optional
        ``host:port`` of its gRPC side; without, those cases are not offered.
    model : str, optional
        A model for the cases that any model can show; by default one of the suite's own, or any that is ready.
    timeout_s : float, default 20
        For each answer.
    assume_all : bool, default False
        Take every extension as offered, whatever the server's metadata say.

    Notes
    -----
    Use as a context manager: it holds connections.
    """

    connection_errors = (httpx.TransportError, httpx.InvalidURL, ConnectionError, TimeoutError)

    def __init__(
        self,
        url: str,
        *,
        grpc: str | None = None,
        model: str | None = None,
        timeout_s: float = 20.0,
        assume_all: bool = False,
    ) -> None:
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self.sent = self.came = ""
        self.strict = False
        self._any: Info | None = None
        self._grpc = grpc
        self._model = model
        self._assume_all = assume_all
        self._http = httpx.Client(
            base_url=self.url, timeout=timeout_s, headers={"accept-encoding": "identity"}, trust_env=False
        )
        self._extensions: frozenset[str] | None = None
        self._known: dict[str, Info | None] = {}
        self._rpc: Rpc | None = None

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
        if self._rpc is not None:
            self._rpc.close()

    # -- what it offers

    @property
    def extensions(self) -> frozenset[str]:
        """What the server's metadata say that it can do beyond the protocol."""
        if self._extensions is None:
            body = self.get("/v2").json
            listed = body.get("extensions", []) if isinstance(body, dict) else []
            self._extensions = frozenset(name for name in listed if isinstance(name, str))
        return self._extensions

    @property
    def assume_all(self) -> bool:
        """Whether extensions are tested even where the server does not name them."""
        return self._assume_all

    def require(self, case: Case) -> None:
        """Raise :class:`NotOffered` unless the server claims what ``case`` tests."""
        if case.transport == "grpc":
            _ = self.rpc
        if case.extensions and not self._assume_all and not self.extensions & {*case.extensions}:
            wanted = " or ".join(repr(name) for name in case.extensions)
            raise NotOffered(f"the server's metadata do not name the extension {wanted}")

    @property
    def rpc(self) -> Rpc:
        """The gRPC side."""
        if self._grpc is None:
            raise NotOffered("no gRPC address was given")
        if self._rpc is None:
            from fairway.testing.conformance.rpc import Rpc

            self._rpc = Rpc(self._grpc, self)
        return self._rpc

    def standard(self, name: str) -> Info:
        """One of the suite's own models, which the operator may have deployed."""
        info = self._info(name)
        if info is None:
            raise NotOffered(f"the server has no model {name!r}; deploy the suite's models (--write-models)")
        return info

    @property
    def any(self) -> Info:
        """A model that only its metadata describe."""
        if self._any is None:
            names = [self._model] if self._model else ["identity_fp32"]
            found = (self._info(name) for source in (names, self._indexed) for name in _listed(source))
            self._any = next((info for info in found if info is not None), None)
        if self._any is not None:
            return self._any
        raise NotOffered("no model is known; name one with --model, or deploy the suite's models (--write-models)")

    def _info(self, name: str) -> Info | None:
        if name not in self._known:
            reply = self.get(f"/v2/models/{quote(name, safe='')}")
            body = reply.json if reply.status == 200 else None
            self._known[name] = body and Info(
                body["name"], tuple(map(str, body.get("versions") or ())), tuple(body["inputs"]), tuple(body["outputs"])
            )
        return self._known[name]

    def _indexed(self) -> list[str]:
        if self._model:
            return []
        reply = self.post("/v2/repository/index", b"{}")
        entries = json.loads(reply.body) if reply.status == 200 else []
        return [entry["name"] for entry in entries if entry.get("state") == "READY"]

    # -- REST

    def request(
        self, method: str, path: str, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One request; ``path`` goes out as it is, but for characters that no URL may hold."""
        self.note(f"{method} {path} {_head_of(content)}{f' {dict(headers)}' if headers else ''}")
        raw = self._http.request(method, path, content=content, headers=dict(headers or {}))
        return self.noted(Reply(raw.status_code, {k.lower(): v for k, v in raw.headers.items()}, raw.content))

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        """GET."""
        return self.request("GET", path, None, headers)

    def post(self, path: str, body: Any = b"", headers: Mapping[str, str] | None = None) -> Reply:
        """POST bytes as they are, anything else as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, content, headers)

    def infer(self, model: str, body: Any, headers: Mapping[str, str] | None = None, *, version: str = "") -> Reply:
        """POST to the infer route; as JSON, unless ``headers`` say otherwise."""
        where = f"/v2/models/{quote(model, safe='')}" + (f"/versions/{version}" if version else "")
        given = dict(headers or {})
        if HEADER_LENGTH not in given:
            given.setdefault("content-type", "application/json")
        return self.post(f"{where}/infer", body, given)

    def infer_json(self, model: str, inputs: Sequence[Tensor], **fields: Any) -> Reply:
        """Infer with JSON data; ``fields`` are the request's others."""
        return self.infer(model, {**fields, "inputs": [given.as_json() for given in inputs]})

    def infer_binary(self, model: str, inputs: Sequence[Tensor], **fields: Any) -> Reply:
        """Infer with binary data both ways."""
        heads, blobs = zip(*(given.as_binary() for given in inputs), strict=True)
        if "outputs" not in fields:
            fields["parameters"] = {"binary_data_output": True, **fields.get("parameters", {})}
        body, length = join({**fields, "inputs": list(heads)}, blobs)
        return self.infer(model, body, {HEADER_LENGTH: str(length), "content-type": "application/octet-stream"})

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A bare TCP connection to the REST side."""
        parts = urlsplit(self.url)
        with connected(parts.hostname or "127.0.0.1", parts.port or 80, self.timeout_s) as made:
            yield made

    @property
    def host(self) -> str:
        """For a Host header."""
        return urlsplit(self.url).netloc

    def alive(self) -> bool:
        """Whether a new connection gets an answer."""
        try:
            return httpx.get(f"{self.url}/v2/health/live", timeout=self.timeout_s, trust_env=False).status_code < 500
        except httpx.TransportError:
            return False

    def is_ready(self) -> bool:
        """Whether it says that it may be sent requests."""
        try:
            return httpx.get(f"{self.url}/v2/health/ready", timeout=self.timeout_s, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    # -- what a failure shows

    def forget(self, *, strict: bool = False) -> None:
        """A new case begins; ``strict``: its refusals must be 4xx."""
        self.sent = self.came = ""
        self.strict = strict

    def note(self, sent: str) -> None:
        """What goes out; shown if the case fails."""
        self.sent, self.came = _cut(sent), ""

    def noted(self, reply: Reply) -> Reply:
        """What came."""
        self.came = reply.shown()
        return replace(reply, strict=self.strict)


def outputs(reply: Reply) -> dict[str, Tensor]:
    """The outputs of a successful answer by name, from JSON or binary; raises :class:`Unmet` if it is not one."""
    if reply.status != 200:
        raise Unmet(f"a valid request was answered with {reply.status}")
    if HEADER_LENGTH not in reply.headers:
        return {output["name"]: from_json(output) for output in reply.json["outputs"]}
    length = int(reply.headers[HEADER_LENGTH])
    head, at = json.loads(reply.body[:length]), length
    found = {}
    for output in head["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            found[output["name"]] = from_json(output)
            continue
        found[output["name"]] = from_bytes(
            output["name"], output["datatype"], output["shape"], reply.body[at : at + size]
        )
        at += size
    expect_equal(len(reply.body), at, "the body's length")
    return found


def head(reply: Reply) -> dict[str, Any]:
    """The JSON part of a successful answer."""
    if reply.status != 200:
        raise Unmet(f"a valid request was answered with {reply.status}")
    length = int(reply.headers.get(HEADER_LENGTH, len(reply.body)))
    found = json.loads(reply.body[:length])
    if not isinstance(found, dict):
        raise Unmet("the answer is not a JSON object")
    return found


def refused(reply: Reply, *statuses: int) -> str:
    """The error's text; raises :class:`Unmet` unless the status is of ``statuses`` and the body tells why.

    By default any error status will do ("typically 400", says the protocol); in strict cases only 4xx.
    """
    wanted = reply.status in statuses if statuses else 400 <= reply.status < (500 if reply.strict else 600)
    if not wanted:
        said = " or ".join(map(str, statuses)) or ("4xx" if reply.strict else "an error")
        raise Unmet(f"answered {reply.status}, not {said}")
    return reply.error


def _listed(source: list[str] | Callable[[], list[str]]) -> list[str]:
    return source() if callable(source) else source


def _zeros(spec: Mapping[str, Any]) -> Tensor:
    shape = [1 if int(size) < 0 else int(size) for size in spec["shape"]]
    count = 1
    for size in shape:
        count *= size
    values: list[Any] = [b""] * count if spec["datatype"] == "BYTES" else [0] * count
    return tensor(spec["name"], spec["datatype"], values, shape)


def _head_of(content: bytes | None) -> str:
    return "" if not content else content[: _SHOWN + 1].decode("utf-8", "backslashreplace")


def _cut(text: str) -> str:
    return text if len(text) <= 2 * _SHOWN else f"{text[: 2 * _SHOWN]} …"
