"""What of a processor changes a model's answers, read from the kernel's own description."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairway.core import processor as described
from fairway.core.processor import int8_sums, processor


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(described, "CPUINFO", path)
    return path


@pytest.mark.parametrize(
    ("flags", "sums"),
    [
        ("fpu sse4_2 avx2", "saturating"),
        ("avx2 avx512f avx512bw", "saturating"),
        ("avx2 avx512f avx512_vnni", "exact"),
        ("avx2 avx_vnni", "exact"),
        ("avx512f amx_int8 amx_tile", "exact"),
    ],
)
def test_without_vnni_sums_of_8_bit_products_saturate(flags: str, sums: str, cpuinfo: Path) -> None:
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: Abacus 2\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    assert (processor(), int8_sums()) == ("Abacus 2", sums)


def test_where_the_kernel_does_not_say_nobody_can_tell(cpuinfo: Path) -> None:
    assert int8_sums() == ""
    assert processor()
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\n")  # an ARM machine
    assert int8_sums() == ""
