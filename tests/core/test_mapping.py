"""Whatever maps, results come in order, parts are taken as they are needed, and a failure ends it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fairway.core.mapping import IN_ORDER, Mapper, Threads

MAPPERS: list[Mapper] = [IN_ORDER, Threads(1), Threads(3)]


@pytest.mark.parametrize("mapper", MAPPERS)
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_results_come_in_the_order_of_parts(mapper: Mapper, count: int) -> None:
    assert list(mapper.map(lambda x: x * x, range(count))) == [x * x for x in range(count)]


@pytest.mark.parametrize("mapper", MAPPERS)
def test_parts_are_not_taken_far_ahead(mapper: Mapper) -> None:
    taken = 0

    def parts() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = mapper.map(lambda x: x, parts())
    assert [next(results) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert taken <= 5 + 2 * 3 + 1


@pytest.mark.parametrize("mapper", MAPPERS)
def test_the_first_failure_in_order_is_raised(mapper: Mapper) -> None:
    results = mapper.map(lambda x: 1 / x, [1, 2, 0, 4])
    assert next(results) == 1
    assert next(results) == 0.5
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_map_within_a_map_does_not_wait_for_itself() -> None:
    threads = Threads(2)
    assert list(threads.map(lambda x: sum(threads.map(abs, range(x, x + 4))), range(6))) == [6, 10, 14, 18, 22, 26]
