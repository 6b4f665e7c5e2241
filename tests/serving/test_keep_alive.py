"""How long an idle connection is kept."""

from __future__ import annotations

import http.client
import json

import pytest

from fairway.bundle.format import Bundle
from fairway.serving.app import serve
from fairway.serving.settings import ServeSettings
from tests.serving.conftest import request_of


@pytest.mark.parametrize("fast_lane", [True, False])
def test_an_idle_connection_serves_on_and_is_closed_in_the_end(bundles: tuple[Bundle, ...], fast_lane: bool) -> None:
    with serve(bundles[0], settings=ServeSettings(port=0, keep_alive_s=1, fast_lane=fast_lane)) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        for _ in range(3):
            client.request("POST", "/v2/models/linear/infer", json.dumps(request_of()))
            response = client.getresponse()
            assert response.status == 200
            response.read()
        assert client.sock is not None, "the server closed a connection in use"
        assert client.sock.recv(1) == b"", "the connection ends, and not by the client's timeout"
        client.close()
