"""What workers and the process that watches them tell each other arrives in lines, however it is cut."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from fairway.serving.channel import Lines

MB = 2**20


@given(
    st.binary(max_size=200).map(lambda data: data.replace(b"\x00", b"\n")), st.lists(st.integers(0, 200), max_size=8)
)
def test_lines_are_the_same_however_what_arrives_is_cut(data: bytes, cuts: list[int]) -> None:
    lines, found = Lines(), []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True):
        found += lines.feed(data[start:end])
    assert [*found, lines.rest] == data.split(b"\n")


def test_a_line_as_long_as_a_model_is_not_copied_with_each_piece_that_arrives() -> None:
    lines = Lines()
    lines.feed(bytes(16 * MB))
    lines.feed(b"more")  # now there is room to grow
    tracemalloc.start()
    try:
        lines.feed(b"more of it")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < MB
