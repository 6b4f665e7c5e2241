"""SQL predicates end, whatever they ask for."""

from __future__ import annotations

import pyarrow as pa
import pytest

from fairway.core.errors import InvalidConfig
from fairway.sources.predicates import evaluate_predicate
from fairway.sources.readers.base import InMemory

ENDLESS = [
    "(SELECT count(*) FROM range(100000000000)) > ink",
    "ink < (WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t)",
]


@pytest.mark.parametrize("where", ENDLESS)
def test_a_predicate_that_takes_too_long_is_stopped(where: str) -> None:
    with pytest.raises(InvalidConfig, match=r"more than 0\.2 s"):
        evaluate_predicate(InMemory(pa.table({"ink": [0.1, 0.2]})), where, limit_s=0.2)
