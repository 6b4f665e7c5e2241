"""What a request in JSON asks of its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairway.core.errors import InvalidRequest
from fairway.serving.transports.elsewhere import Elsewhere, region_of
from fairway.serving.transports.v2 import OutputOptions, Reply

_RESERVED = "triton_"
_ALLOWED = frozenset({"triton_enable_empty_final_response"})


def output_options(entries: Any, elsewhere: Elsewhere) -> Mapping[str, OutputOptions]:
    """The outputs that a request lists, by name; an output listed twice is the last of them.

    Raises :class:`InvalidRequest` saying what is wrong with an entry.
    """
    if entries is None:
        return {}
    if type(entries) is not list:
        raise InvalidRequest("'outputs' must be a list of objects, each with a 'name'")
    options = map(_option, entries)
    found = {option.name: option for option in options}
    if any(option.region is not None for option in found.values()):
        elsewhere.check_enabled()
    return found


def own_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """A request's own parameters. Those whose names begin with ``triton_`` are the protocol's.

    Raises :class:`InvalidRequest` for one of them that means nothing here.
    """
    own = dict(given)
    for name in [name for name in own if name.startswith(_RESERVED)]:
        if name not in _ALLOWED:
            raise InvalidRequest(f"parameter {name!r:.100} begins with {_RESERVED!r}, which is reserved; rename it")
        del own[name]
    return own


def reply_of(options: Mapping[str, OutputOptions], parameters: dict[str, Any]) -> Reply | None:
    """How the answer is wanted, ``None`` if as plain JSON.

    ``binary_data_output`` is for requests that list no outputs. It is taken out of ``parameters``: nobody else has use for it.
    """
    binary = parameters.pop("binary_data_output", False)
    if type(binary) is not bool:
        raise InvalidRequest(f"parameter 'binary_data_output' is {binary!r}; it is true or false")
    if not options:
        return Reply(binary=True) if binary else None
    if any(option.binary or option.classification or option.region is not None for option in options.values()):
        return Reply(options)
    return None


def _option(entry: Any) -> OutputOptions:
    if type(entry) is not dict:
        raise InvalidRequest(f"an entry of 'outputs' is {entry!r:.100}; it must be a JSON object with a 'name'")
    name = entry.get("name")
    if type(name) is not str or not name:
        raise InvalidRequest("an entry of 'outputs' has no name; give each a 'name'")
    parameters = entry.get("parameters")
    if not parameters:
        return OutputOptions(name)
    if type(parameters) is not dict:
        raise InvalidRequest(f"the parameters of output {name!r} are {parameters!r:.100}; they must be a JSON object")
    binary = parameters.get("binary_data")
    if binary is not None and type(binary) is not bool:
        raise InvalidRequest(f"'binary_data' of output {name!r} is {binary!r:.100}; it is true or false")
    classes = parameters.get("classification", 0)
    if type(classes) is not int or classes < 0:
        raise InvalidRequest(
            f"'classification' of output {name!r} is {classes!r:.100}; it is how many classes are wanted, 0 for the values"
        )
    region = region_of(f"output {name!r}", parameters)
    if region is not None and classes:
        raise InvalidRequest(f"output {name!r} is wanted as classes, which are not put in shared memory; leave one out")
    return OutputOptions(name, binary, classes, region)
