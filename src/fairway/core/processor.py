"""What of this machine's processor changes the answers of a model, or the numbers measured of it."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

CPUINFO = Path("/proc/cpuinfo")

Sums: TypeAlias = Literal["exact", "saturating", ""]

_EXACT = {"avx512_vnni", "avx_vnni", "amx_int8"}


def processor() -> str:
    """The processor's model name."""
    return next(_fields("model name"), "") or platform.processor() or "unknown"


def abilities() -> str:
    """The processor's instruction sets, as the kernel lists them; empty where it does not."""
    return next(_fields("flags"), "") or next(_fields("Features"), "")


def int8_sums() -> Sums:
    """Whether products of 8-bit integers are added up exactly, or two of them in 16 bits; empty where nobody can tell.

    Of x86 processors only those with VNNI or AMX instructions add them exactly: on others two large products saturate, and
    a graph with weights of 8 bits answers otherwise. Weights of 7 bits are the same on all.

    References
    ----------
    ONNX Runtime, "Quantize ONNX models", section "U8S8 saturation".
    """
    flags = next(_fields("flags"), "").split()
    if not flags:
        return ""
    return "exact" if _EXACT & set(flags) else "saturating"


def _fields(name: str) -> Iterator[str]:
    try:
        lines = CPUINFO.read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == name:
            yield value.strip()
