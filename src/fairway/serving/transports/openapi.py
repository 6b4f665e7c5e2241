"""The REST API described by OpenAPI, and a page that shows it without anything from elsewhere."""

from __future__ import annotations

from typing import Any

from fairway.core.tensors import Datatype


def document(version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a server of Fairway ``version``."""
    paths: dict[str, Any] = {
        "/v2": {"get": _operation("serverMetadata", "Server metadata", "ServerMetadata")},
        "/v2/health/live": {"get": _operation("serverLive", "Is the process alive?", "Live")},
        "/v2/health/ready": {"get": _operation("serverReady", "May requests be sent?", "Ready", errors=(503,))},
        "/v2/repository/index": {
            "post": _operation(
                "repositoryIndex", "Every version and its state", "Index", body="IndexRequest", errors=(400,)
            )
        },
    }
    for suffix, base in (("", _MODEL), ("Version", _MODEL + "/versions/{version}")):
        names = ("model", "version") if suffix else ("model",)
        absent = (404, 503)
        paths[base] = {
            "get": _operation(f"model{suffix}Metadata", "What a model takes and gives", "Model", names, errors=absent)
        }
        paths[base + "/ready"] = {
            "get": _operation(f"model{suffix}Ready", "Can it answer?", "ModelReady", names, errors=absent)
        }
        infer = _operation(
            f"model{suffix}Infer", "Infer", "InferResponse", names, body="InferRequest", errors=_INFER_ERRORS
        )
        infer["parameters"].append(_ROUTE_KEY)
        infer["requestBody"]["required"] = True
        paths[base + "/infer"] = {"post": infer}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Fairway", "version": version, "description": "The Open Inference Protocol (V2), JSON."},
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }


_MODEL = "/v2/models/{model}"
_INFER_ERRORS = (400, 404, 413, 415, 429, 500, 503, 504)
_REASONS = {
    400: "The request does not fit the protocol or the model",
    404: "No such model or version",
    413: "The body is above the server's limit",
    415: "The content encoding is not read here",
    429: "The queue is full; Retry-After says when to come back",
    500: "The model failed on a valid request",
    503: "Not ready",
    504: "The request's timeout passed before it was answered",
}
_ROUTE_KEY = {
    "name": "Fairway-Route-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "Callers with the same key stay with one version while a release is in progress.",
}


def _operation(
    name: str,
    summary: str,
    answer: str,
    path: tuple[str, ...] = (),
    *,
    body: str = "",
    errors: tuple[int, ...] = (),
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "parameters": [{"name": part, "in": "path", "required": True, "schema": {"type": "string"}} for part in path],
        "responses": {"200": {"description": "OK", "content": _content(answer)}}
        | {str(status): {"description": _REASONS[status], "content": _content("Error")} for status in errors},
    }
    if body:
        operation["requestBody"] = {"content": _content(body)}
    return operation


def _content(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties} | ({"required": list(required)} if required else {})


def _list(of: Any) -> dict[str, Any]:
    return {"type": "array", "items": of}


_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_DATATYPE = {"type": "string", "enum": [kind.value for kind in Datatype]}
_SPEC = _object(("name", "datatype", "shape"), name=_TEXT, datatype=_DATATYPE, shape=_list({"type": "integer"}))
_SIZES = _list({"type": "integer", "minimum": 0})
_TENSOR = _object(
    ("name", "shape", "datatype", "data"),
    name={"type": "string", "minLength": 1},
    shape=_SIZES,
    datatype=_DATATYPE,
    data={"type": "array", "description": "Values in row-major order, nested or flat."},
)
_PARAMETERS = _object(
    raw={"type": "boolean", "description": "Skip the model's pre- and post-processing."},
    timeout={"type": "integer", "minimum": 0, "description": "Microseconds to answer within; 0 is no limit."},
)
_SCHEMAS: dict[str, Any] = {
    "Error": _object(("error",), error=_TEXT, code=_TEXT),
    "ServerMetadata": _object(("name", "version", "extensions"), name=_TEXT, version=_TEXT, extensions=_list(_TEXT)),
    "Live": _object(("live",), live=_FLAG),
    "Ready": _object(("ready",), ready=_FLAG),
    "ModelReady": _object(("name", "ready"), name=_TEXT, ready=_FLAG),
    "Model": _object(
        ("name", "versions", "platform", "inputs", "outputs"),
        name=_TEXT,
        versions=_list(_TEXT),
        platform=_TEXT,
        inputs=_list(_SPEC),
        outputs=_list(_SPEC),
    ),
    "IndexRequest": _object(ready={"type": "boolean", "description": "Only versions that can answer."}),
    "Index": _list(_object(("name", "version", "state"), name=_TEXT, version=_TEXT, state=_TEXT, reason=_TEXT)),
    "InferRequest": _object(
        ("inputs",),
        id=_TEXT,
        parameters=_PARAMETERS,
        inputs=_list(_TENSOR) | {"minItems": 1},
        outputs=_list(_object(("name",), name={"type": "string", "minLength": 1})),
    ),
    "InferResponse": _object(
        ("model_name", "model_version", "outputs"),
        id=_TEXT,
        model_name=_TEXT,
        model_version=_TEXT,
        outputs=_list(_TENSOR),
    ),
}

DOCS = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Fairway API</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
details{border:1px solid #d0d7de;border-radius:6px;margin:.5rem 0;padding:.5rem .8rem}summary{cursor:pointer}
code,pre{font:14px/1.45 ui-monospace,monospace}pre{background:#f6f8fa;padding:.8rem;overflow:auto;border-radius:6px}
b.get{color:#0a6640}b.post{color:#0b57a4}td,th{text-align:left;padding:.15rem .8rem .15rem 0;vertical-align:top}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}pre{background:#161b22}details{border-color:#30363d}
b.get{color:#56d364}b.post{color:#79c0ff}a{color:#79c0ff}}
</style></head><body><h1>Fairway API</h1>
<p id="about">Described in <a href="openapi.json">openapi.json</a>.</p><main id="paths"></main>
<h2>Schemas</h2><div id="schemas"></div>
<script>
const make=(tag,text,parent,cls)=>{const e=document.createElement(tag);if(text!==undefined)e.textContent=text;
if(cls)e.className=cls;if(parent)parent.append(e);return e};
const pretty=o=>JSON.stringify(o,null,2);
fetch('openapi.json').then(r=>r.json()).then(api=>{
make('p',api.info.description+' Version '+api.info.version+'.',document.getElementById('about'));
for(const[path,methods]of Object.entries(api.paths))for(const[method,op]of Object.entries(methods)){
const d=make('details',undefined,document.getElementById('paths')),s=make('summary',undefined,d);
make('b',method.toUpperCase()+' ',s,method);make('code',path,s);make('span',' — '+op.summary,s);
if(op.requestBody){make('p','Request body',d);make('pre',pretty(op.requestBody.content),d)}
if(op.parameters.length){make('p','Parameters',d);make('pre',pretty(op.parameters),d)}
const t=make('table',undefined,d);for(const[code,r]of Object.entries(op.responses)){const row=make('tr',undefined,t);
make('th',code,row);make('td',r.description,row)}}
for(const[name,schema]of Object.entries(api.components.schemas)){const d=make('details',undefined,
document.getElementById('schemas'));make('summary',name,d);make('pre',pretty(schema),d)}});
</script></body></html>
"""
