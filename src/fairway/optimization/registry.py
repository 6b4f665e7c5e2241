"""Every pass there is, by name: ours and anybody's, through the entry-point group ``fairway.passes``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from types import MappingProxyType

from fairway.core.errors import InvalidConfig
from fairway.optimization.passes.base import Pass

MODULES: Mapping[str, tuple[str, ...]] = {
    "nncf": ("nncf",),
    "openvino": ("openvino",),
    "torch": ("torch",),
    "optimize": ("onnx",),
}
"""By extra: a module that is there if the extra is."""


@cache
def passes() -> Mapping[str, Pass]:
    """Passes by name. Finding them imports their descriptions, and nothing that they work with."""
    found: dict[str, Pass] = {}
    for entry in sorted(entry_points(group="fairway.passes"), key=lambda entry: entry.name):
        described = entry.load()
        if not isinstance(described, Pass) or described.name != entry.name:
            raise InvalidConfig(f"the entry point {entry.name!r} of group 'fairway.passes' is no pass of that name")
        found[entry.name] = described
    return MappingProxyType(found)


def runs_here(described: Pass) -> bool:
    """Whether all that a pass needs is installed."""
    if missing_extras(described):
        return False
    if not described.needs.provider:
        return True
    import onnxruntime

    return described.needs.provider in onnxruntime.get_available_providers()


def missing_extras(described: Pass) -> tuple[str, ...]:
    """The extras that a pass needs and that are not installed."""
    return tuple(e for e in described.needs.extras if any(find_spec(m) is None for m in MODULES.get(e, ())))
