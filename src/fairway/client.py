"""A client of any server of the Open Inference Protocol (V2) over HTTP, with typed errors from Fairway's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import numpy as np
import orjson
from numpy.typing import ArrayLike

from fairway.core.errors import (
    KINDS,
    FairwayError,
    InferenceFailed,
    InvalidConfig,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    ServerUnavailable,
    rebuilt,
)
from fairway.core.messages import InferResponse
from fairway.core.tensors import Datatype, Tensor

if TYPE_CHECKING:
    import httpx


_HEADER_LENGTH = "inference-header-content-length"


def connect(
    url: str,
    *,
    timeout_s: float = 30.0,
    retry_s: float = 0.0,
    binary: bool | None = None,
    compressed: bool = False,
) -> Client:
    """A client of the server at ``url``. Connects at the first call.

    Parameters
    ----------
    url : str
        Such as ``http://127.0.0.1:8080``.
    timeout_s : float, default 30
        How long one call may take, in seconds.
    retry_s : float, default 0
        How long, in seconds, one call may in all be tried again where the server did not take it: connection refused, queue
        full, not ready. Nothing that may have run is ever sent twice.
    binary : bool, optional
        Whether tensors are sent and asked for as raw bytes, which is quicker and takes every datatype. By default where the
        server's metadata names the extension ``binary_tensor_data``, which is asked once; else as JSON.
    compressed : bool, default False
        Whether the server may compress its answers: worth it on slow lines only.

    Raises
    ------
    InvalidConfig
        If ``url`` is not an HTTP address.
    """
    return Client(url, timeout_s=timeout_s, retry_s=retry_s, binary=binary, compressed=compressed)


class Client:
    """Keeps a pool of connections: make one and share it between threads; a context manager. See :func:`connect`."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 30.0,
        retry_s: float = 0.0,
        binary: bool | None = None,
        compressed: bool = False,
    ) -> None:
        import httpx

        _check_address(url)
        self.url = url.rstrip("/")
        self._retry_s = retry_s
        self._binary = binary
        self._datatypes: dict[str, Mapping[str, Datatype]] = {}
        secure = url.startswith("https:")  # loading the authorities takes long, and plain HTTP needs none
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self._http = httpx.Client(
            base_url=self.url,
            timeout=timeout_s,
            limits=limits,
            trust_env=False,
            verify=secure,
            headers={"accept-encoding": "gzip, deflate" if compressed else "identity"},
        )

    def infer(
        self,
        model: str,
        inputs: Mapping[str, ArrayLike],
        *,
        version: str | int | None = None,
        outputs: Sequence[str] | None = None,
        parameters: Mapping[str, Any] | None = None,
        id: str | None = None,
        key: str | None = None,
    ) -> InferResponse:
        """Answer ``inputs`` with ``model``.

        Parameters
        ----------
        model : str
        inputs : mapping of name to array-like
            An array is sent as the datatype that it has, text as ``BYTES``; lists and numbers as what the model takes.
        version : str or int, optional
            By default, whichever the release routes this caller to.
        outputs : sequence of str, optional
            Those wanted; by default all.
        parameters : mapping, optional
            Such as ``{"raw": True}``, or ``{"timeout": 50_000}`` (microseconds).
        id : str, optional
            Comes back in the response.
        key : str, optional
            Callers with the same key stay with one version while a release is in progress.

        Returns
        -------
        InferResponse
            ``.outputs`` maps names to arrays; ``.version`` is the one version that answered.

        Raises
        ------
        FairwayError
            As the server says: :class:`~fairway.core.errors.InvalidRequest`, :class:`~fairway.core.errors.ModelNotFound`,
            :class:`~fairway.core.errors.Overloaded` …; or :class:`~fairway.core.errors.ServerUnavailable`.
        """
        arrays = {name: self._as_array(model, version, name, value) for name, value in inputs.items()}
        message: dict[str, Any] = {"inputs": [], "id": id, "parameters": dict(parameters or {})}
        if outputs is not None:
            message["outputs"] = [{"name": name} for name in outputs]
        write = _write_binary if self._takes_binary() else _write_json
        body, headers = write({name: value for name, value in message.items() if value}, arrays)
        if key is not None:
            headers["fairway-route-key"] = key
        answer: InferResponse = self._call("POST", f"{_model(model, version)}/infer", body, headers, _response)
        return answer

    def metadata(self, model: str | None = None, version: str | int | None = None) -> dict[str, Any]:
        """What a model takes and gives; of the server itself without ``model``."""
        return self._object(self._call("GET", "/v2" if model is None else _model(model, version)))

    def index(self) -> list[dict[str, Any]]:
        """Every version that the server knows, with its state, and the reason where it is not ready."""
        answer = self._call("POST", "/v2/repository/index", b"{}", {"content-type": "application/json"})
        if not isinstance(answer, list):
            raise ServerUnavailable(f"{self.url} answers its index with something else; is it a V2 server?")
        return answer

    def live(self) -> bool:
        """Whether the server runs."""
        return self._says_yes("/v2/health/live")

    def ready(self, model: str | None = None, version: str | int | None = None) -> bool:
        """Whether the server, or one of its models, may be sent requests."""
        return self._says_yes("/v2/health/ready" if model is None else f"{_model(model, version)}/ready")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _as_array(self, model: str, version: str | int | None, name: str, value: ArrayLike) -> Tensor:
        if isinstance(value, np.ndarray):
            return value
        taken = self._taken(model, version).get(name)
        try:
            if taken is None or taken is Datatype.BYTES:
                return np.asarray(value)
            return np.asarray(value, dtype=taken.dtype)
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidRequest(f"input {name!r} cannot be made an array of {taken or 'numbers'}: {error}") from None

    def _taken(self, model: str, version: str | int | None) -> Mapping[str, Datatype]:
        """What the model takes, asked once per model: its versions take the same, or the server says that it is wrong."""
        if model not in self._datatypes:
            specs = self.metadata(model, version).get("inputs", [])
            known = {kind.value for kind in Datatype}
            self._datatypes[model] = {s["name"]: Datatype(s["datatype"]) for s in specs if s["datatype"] in known}
        return self._datatypes[model]

    def _takes_binary(self) -> bool:
        """Whether to send raw bytes. A server that cannot be asked now gets JSON, and is asked the next time."""
        if self._binary is None:
            try:
                extensions = self._object(self._once("GET", "/v2")).get("extensions")
                self._binary = isinstance(extensions, list) and "binary_tensor_data" in extensions
            except (ModelNotFound, InvalidRequest):  # it tells nothing of itself
                self._binary = False
            except FairwayError:  # the request itself will say what is wrong
                return False
        return self._binary

    def _says_yes(self, path: str) -> bool:
        import httpx

        try:
            return self._http.get(path).status_code == 200
        except httpx.TransportError:
            return False

    def _object(self, answer: Any) -> dict[str, Any]:
        if not isinstance(answer, dict):
            raise ServerUnavailable(f"{self.url} answers with something else than metadata; is it a V2 server?")
        return answer

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        read: Callable[[httpx.Response], Any] | None = None,
    ) -> Any:
        """One call, tried again while that is safe and within the budget; what ``read`` gives, or the JSON."""
        for wait in _waits(self._retry_s, time.monotonic):
            try:
                return self._once(method, path, body, headers, read)
            except (Overloaded, ModelNotReady, _Refused) as error:
                last: FairwayError = error
                pause = wait(error.retry_after_s if isinstance(error, Overloaded) else 0.0)
            if pause is None:
                break
            time.sleep(pause)
        raise last

    def _once(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        read: Callable[[httpx.Response], Any] | None = None,
    ) -> Any:
        import httpx

        try:
            response = self._http.request(method, path, content=body, headers=headers)
        except httpx.ConnectError as error:
            raise _Refused(f"no server at {self.url} ({error}); start one with: fairway serve") from None
        except httpx.TimeoutException:
            raise ServerUnavailable(f"{self.url} did not answer in time; allow more with timeout_s") from None
        except httpx.TransportError as error:
            raise ServerUnavailable(f"the connection to {self.url} broke: {error}; it is safe to try again") from None
        if response.status_code != 200:
            raise _error(response)
        try:
            return _decode(response.content) if read is None else read(response)
        except ValueError:
            raise ServerUnavailable(f"{self.url} answers without JSON; is it a V2 server?") from None


class _Refused(ServerUnavailable):
    """Nothing was sent."""


def _waits(budget_s: float, clock: Callable[[], float]) -> Iterator[Callable[[float], float | None]]:
    """Before each try: a function from the server's wish to how long to wait before the next, ``None``: give up."""
    started, step = clock(), 0.05

    def wait(wish: float) -> float | None:
        pause = max(step, wish)
        return pause if clock() - started + pause <= budget_s else None

    while True:
        yield wait
        step = min(step * 2, 2.0)


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise InvalidConfig(f"{url!r} is not a server's address; write it as http://HOST:PORT")


def _model(name: str, version: str | int | None) -> str:
    path = f"/v2/models/{quote(name, safe='')}"
    return path if version is None else f"{path}/versions/{quote(str(version), safe='')}"


def _write_binary(message: dict[str, Any], arrays: Mapping[str, Tensor]) -> tuple[bytes, dict[str, str]]:
    """A request, and its headers, as JSON followed by the tensors' bytes."""
    from fairway.serving.transports.v2 import tensor_to_bytes

    inputs, blobs = [], []
    for name, array in arrays.items():
        datatype = _datatype(name, array)
        if datatype is Datatype.BYTES:
            for item in array.flat:
                _check_text(name, item)
        blobs.append(tensor_to_bytes(array))
        size = {"binary_data_size": len(blobs[-1])}
        inputs.append({"name": name, "shape": array.shape, "datatype": datatype.value, "parameters": size})
    if "outputs" in message:
        message["outputs"] = [{**output, "parameters": {"binary_data": True}} for output in message["outputs"]]
    else:
        message["parameters"] = {**message.get("parameters", {}), "binary_data_output": True}
    header = orjson.dumps({**message, "inputs": inputs})
    headers = {"content-type": "application/octet-stream", _HEADER_LENGTH: str(len(header))}
    return b"".join((header, *blobs)), headers


def _write_json(message: dict[str, Any], arrays: Mapping[str, Tensor]) -> tuple[bytes, dict[str, str]]:
    """A request, and its headers, as JSON."""
    message["inputs"] = [_tensor(name, array) for name, array in arrays.items()]
    return _encode(message), {"content-type": "application/json"}


def _datatype(name: str, array: Tensor) -> Datatype:
    try:
        return Datatype.of(array.dtype)
    except ValueError as error:
        raise InvalidRequest(f"input {name!r}: {error}; convert it first") from None


def _tensor(name: str, array: Tensor) -> dict[str, Any]:
    datatype = _datatype(name, array)
    if datatype is Datatype.BF16:
        raise InvalidRequest(f"input {name!r} is BF16, which this server cannot take as JSON; convert it to FP32")
    data: Any = array.ravel()
    if datatype is Datatype.BYTES:
        data = [_text(name, item) for item in data]
    return {"name": name, "shape": array.shape, "datatype": datatype.value, "data": data}


def _check_text(name: str, item: Any) -> None:
    if not isinstance(item, str | bytes):
        raise InvalidRequest(f"input {name!r} holds {type(item).__name__}; send text, bytes, or an array of numbers")


def _text(name: str, item: Any) -> str:
    _check_text(name, item)
    if not isinstance(item, bytes):
        return str(item)
    try:
        return item.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"input {name!r} holds bytes that are not UTF-8, which JSON cannot carry") from None


def _encode(message: dict[str, Any]) -> bytes:
    """As JSON; NaN and infinities bare, as the protocol's servers read them."""
    for tensor in message["inputs"]:
        data = tensor["data"]
        if isinstance(data, np.ndarray) and data.dtype.kind == "f" and not np.isfinite(data).all():
            plain = [{**each, "data": _listed(each["data"])} for each in message["inputs"]]
            return json.dumps({**message, "inputs": plain}).encode()
    for tensor in message["inputs"]:
        if isinstance(tensor["data"], np.ndarray):
            tensor["data"] = np.ascontiguousarray(tensor["data"])
    return orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY)


def _listed(data: Any) -> Any:
    return data.tolist() if isinstance(data, np.ndarray) else data


def _decode(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return json.loads(content)


def _response(response: httpx.Response) -> InferResponse:
    """The answer: JSON, or JSON followed by the outputs' bytes."""
    content = response.content
    blobs = memoryview(b"")
    if (length := response.headers.get(_HEADER_LENGTH, "")).isdecimal():
        blobs = memoryview(bytearray(content))[int(length) :]  # arrays of which may be written to
        content = content[: int(length)]
    message = _decode(content)
    outputs: dict[str, Tensor] = {}
    try:
        for tensor in message["outputs"]:
            size = (tensor.get("parameters") or {}).get("binary_data_size")
            outputs[tensor["name"]] = _array(tensor) if size is None else _viewed(tensor, blobs[:size])
            blobs = blobs[size or 0 :]
        return InferResponse(
            message["model_name"],
            str(message.get("model_version", "")),
            outputs,
            id=message.get("id") or None,
            parameters=message.get("parameters") or {},
        )
    except (KeyError, TypeError, ValueError, AttributeError, FairwayError) as error:
        raise ServerUnavailable(f"the answer is not a V2 response ({error!r}); is it a V2 server?") from None


def _viewed(tensor: Mapping[str, Any], content: memoryview) -> Tensor:
    from fairway.serving.transports.v2 import tensor_from_bytes

    return tensor_from_bytes(tensor["name"], Datatype(tensor["datatype"]), tuple(tensor["shape"]), content)


def _array(tensor: Mapping[str, Any]) -> Tensor:
    datatype, shape = Datatype(tensor["datatype"]), tuple(tensor["shape"])
    if datatype is not Datatype.BYTES:
        return np.array(tensor["data"], dtype=datatype.dtype).reshape(shape)
    flat = np.empty(len(tensor["data"]), dtype=object)
    flat[:] = [item.encode() for item in tensor["data"]]
    return flat.reshape(shape)


def _error(response: httpx.Response) -> FairwayError:
    """The error that the server means: by its ``code``, or by the status of a server that is not Fairway's."""
    try:
        body = _decode(response.content)
        text, code = str(body["error"]), body.get("code", "")
    except (ValueError, KeyError, TypeError, AttributeError):
        text, code = f"status {response.status_code}: {response.text[:200]}", ""
    kind = KINDS.get(code) or _BY_STATUS.get(response.status_code)
    if kind is None:
        kind = InvalidRequest if response.status_code < 500 else InferenceFailed
    error = rebuilt(kind, text)
    if isinstance(error, Overloaded):
        wish = response.headers.get("retry-after", "")
        error.retry_after_s = float(wish) if wish.isdecimal() else 1.0
    return error


_BY_STATUS: dict[int, type[FairwayError]] = {
    404: ModelNotFound,
    429: Overloaded,
    502: ServerUnavailable,
    503: ModelNotReady,
}
