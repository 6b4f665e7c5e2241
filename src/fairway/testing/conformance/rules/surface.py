"""Which routes exist, health, metadata, names and versions."""

from __future__ import annotations

from urllib.parse import quote

from fairway.testing.conformance.case import NotOffered, case, expect, expect_equal
from fairway.testing.conformance.target import Target, head, outputs, refused
from fairway.testing.conformance.tensors import DTYPES, tensor


@case("server.metadata")
def server_metadata(target: Target) -> None:
    """OIP, server metadata: GET v2 gives name, version and extensions, a list of strings."""
    reply = target.get("/v2")
    expect_equal(reply.status, 200, "the status")
    body = reply.json
    expect(isinstance(body["name"], str) and body["name"], "name must be a text")
    expect(isinstance(body["version"], str), "version must be a text")
    listed = body["extensions"]
    expect(
        isinstance(listed, list) and all(isinstance(name, str) for name in listed), "extensions must be a list of texts"
    )


@case("server.metadata.slash", level="robust")
def server_metadata_slash(target: Target) -> None:
    """OIP writes the route /v2/, Triton /v2: both are served."""
    expect_equal(target.get("/v2/").status, 200, "the status of /v2/")


@case("health.live")
def live(target: Target) -> None:
    """OIP, health: GET v2/health/live is 200 while the server runs."""
    expect_equal(target.get("/v2/health/live").status, 200, "the status")


@case("health.ready")
def ready(target: Target) -> None:
    """OIP, health: GET v2/health/ready is 200 once every model can be asked."""
    expect_equal(target.get("/v2/health/ready").status, 200, "the status")


@case("model.ready")
def model_ready(target: Target) -> None:
    """OIP, health: GET v2/models/M/ready is 200 for a ready model; the code is the contract, not the body."""
    expect_equal(target.get(f"/v2/models/{quote(target.any.name)}/ready").status, 200, "the status")


@case("model.ready.version")
def version_ready(target: Target) -> None:
    """OIP, health: readiness of one version of a model."""
    model = target.any
    if not model.versions:
        raise NotOffered(f"the metadata of {model.name!r} list no versions")
    expect_equal(
        target.get(f"/v2/models/{quote(model.name)}/versions/{model.versions[-1]}/ready").status, 200, "the status"
    )


@case("model.ready.unknown")
def unknown_ready(target: Target) -> None:
    """A model that does not exist is not ready: 400 (Triton), 404 or 503, never 200."""
    reply = target.get("/v2/models/no_such_model/ready")
    expect(reply.status in (400, 404, 503), f"answered {reply.status}")


@case("model.metadata")
def model_metadata(target: Target) -> None:
    """OIP, model metadata: name, versions, platform, inputs and outputs with name, datatype, shape."""
    model = target.any
    body = target.get(f"/v2/models/{quote(model.name)}").json
    expect_equal(body["name"], model.name, "name")
    expect(isinstance(body["platform"], str), "platform must be a text")
    versions = body.get("versions", [])
    expect(isinstance(versions, list) and all(isinstance(v, str) for v in versions), "versions must be a list of texts")
    for spec in [*body["inputs"], *body["outputs"]]:
        expect(isinstance(spec["name"], str) and spec["name"], "every tensor has a name")
        expect(spec["datatype"] in DTYPES, f"{spec['datatype']!r} is no datatype of the protocol")
        expect(
            all(isinstance(size, int) and size >= -1 for size in spec["shape"]), "shapes are integers, -1 for any size"
        )


@case("model.metadata.version")
def version_metadata(target: Target) -> None:
    """OIP, model metadata: one version can be asked for."""
    model = target.any
    if not model.versions:
        raise NotOffered(f"the metadata of {model.name!r} list no versions")
    reply = target.get(f"/v2/models/{quote(model.name)}/versions/{model.versions[-1]}")
    expect_equal(reply.status, 200, "the status")
    expect_equal(reply.json["name"], model.name, "name")


@case("model.metadata.unknown")
def unknown_metadata(target: Target) -> None:
    """OIP: an unknown model is an error, and its body is {"error": "text"}."""
    refused(target.get("/v2/models/no_such_model"))


@case("model.metadata.unknown.404", level="extension")
def unknown_metadata_status(target: Target) -> None:
    """Triton answers 404 where a model is unknown."""
    refused(target.get("/v2/models/no_such_model"), 404)


@case("model.unknown.strange")
def strange_names(target: Target) -> None:
    """A name with spaces, percent signs, slashes or other scripts is decoded and not found: refused."""
    for name in ("no such model", "100%", "模型", "a/b", "é"):
        refused(target.get(f"/v2/models/{quote(name, safe='')}"))


@case("model.name.escaped", level="robust")
def escaped_name(target: Target) -> None:
    """Clients percent-encode names: an escaped letter is that letter (RFC 3986, 6.2.2.2)."""
    name = target.any.name
    reply = target.get(f"/v2/models/%{ord(name[0]):02X}{quote(name[1:])}")
    expect_equal(reply.status, 200, "the status")
    expect_equal(reply.json["name"], name, "name")


@case("version.unknown")
def unknown_version(target: Target) -> None:
    """OIP: an unknown version is an error with a body."""
    name = quote(target.any.name)
    for version in ("987654", "99999999999999999999", "-1", "latest"):
        refused(target.get(f"/v2/models/{name}/versions/{version}"))


@case("version.infer")
def named_version(target: Target) -> None:
    """OIP: a version that is named answers, and model_version names it."""
    model = target.standard("versions")
    for version in model.versions:
        reply = target.infer(model.name, {"inputs": [tensor("x", "INT32", [[40]]).as_json()]}, version=version)
        expect_equal(int(outputs(reply)["y"].array[0, 0]), 40 + int(version), f"the answer of version {version}")
        expect_equal(head(reply).get("model_version", version), version, "model_version")


@case("version.latest", level="extension")
def latest_version(target: Target) -> None:
    """Without a version the server's policy chooses; Triton's is the greatest number: 10, not 9."""
    model = target.standard("versions")
    reply = target.infer_json(model.name, [tensor("x", "INT32", [[40]])])
    expect_equal(int(outputs(reply)["y"].array[0, 0]), 50, "the answer")
    expect_equal(head(reply)["model_version"], "10", "model_version")


@case("version.padded", level="extension")
def padded_version(target: Target) -> None:
    """Triton reads versions as numbers: 01 is 1."""
    reply = target.infer(
        target.standard("versions").name, {"inputs": [tensor("x", "INT32", [[40]]).as_json()]}, version="01"
    )
    expect_equal(int(outputs(reply)["y"].array[0, 0]), 41, "the answer")


@case("route.unknown", level="robust")
def unknown_route(target: Target) -> None:
    """A path that is nothing is 404 with {"error": "text"}."""
    refused(target.get("/v2/no/such/route"), 404)


@case("route.unknown.status")
def unknown_route_status(target: Target) -> None:
    """A path that is nothing is an error."""
    expect(400 <= target.get("/v2/no/such/route").status < 500, "the status is not 4xx")


@case("route.method", level="extension")
def wrong_method(target: Target) -> None:
    """A method that a route does not take is 405 with {"error": "text"} (RFC 9110, 15.5.6)."""
    name = quote(target.any.name)
    refused(target.get(f"/v2/models/{name}/infer"), 405)
    refused(target.post(f"/v2/models/{name}"), 405)
    refused(target.request("DELETE", "/v2/health/live"), 405)


@case("route.method.allow", level="robust")
def allowed_methods(target: Target) -> None:
    """A 405 says in Allow what the route takes (RFC 9110, 15.5.6)."""
    reply = target.get(f"/v2/models/{quote(target.any.name)}/infer")
    expect("POST" in reply.headers.get("allow", ""), f"Allow is {reply.headers.get('allow')!r}, without POST")


@case("route.head", level="robust")
def head_method(target: Target) -> None:
    """HEAD answers as GET or is refused as 405, in both cases without a body (RFC 9110, 9.3.2)."""
    with target.connection() as connection:
        target.note("HEAD /v2/health/live, then GET on the same connection")
        connection.send(f"HEAD /v2/health/live HTTP/1.1\r\nhost: {target.host}\r\n\r\n".encode())
        reply = target.noted(connection.reply(to_head=True))
        expect(reply.status in (200, 405), f"HEAD was answered with {reply.status}")
        connection.send(f"GET /v2/health/live HTTP/1.1\r\nhost: {target.host}\r\n\r\n".encode())
        expect_equal(target.noted(connection.reply()).status, 200, "the status of the next request")


@case("route.query", level="robust")
def query(target: Target) -> None:
    """A query after the path does not change which route it is."""
    expect_equal(target.get("/v2/health/live?from=probe").status, 200, "the status")
