"""The rows of a query: run once, read only, and never a password in what is said."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fairway.core.errors import InvalidConfig, InvalidData
from fairway.sources.readers import spool, sql
from fairway.sources.settings import DataSettings
from fairway.sources.tables import Table, load_table


def ask(query: str, root: Path, database: str = "") -> Table:
    return load_table(query, settings=DataSettings(test=query, database=database), root=root)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("CREATE TABLE sales (id INTEGER, price REAL, name TEXT, late INTEGER)")
        rows = [(n, n / 4, f"item {n}: 50%", None if n < 40 else n) for n in range(50)]
        database.executemany("INSERT INTO sales VALUES (?, ?, ?, ?)", rows)
    database.close()
    return tmp_path


def test_files_are_queried_without_any_database(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    pyarrow.parquet.write_table(
        pa.table({"x": np.arange(100), "split": ["train", "test"] * 50}), tmp_path / "rows" / "a.parquet"
    )
    table = ask("sql:SELECT x, x * 2 AS twice FROM 'rows/*.parquet' WHERE split = 'test' ORDER BY x;", tmp_path)
    assert (table.rows, table.columns) == (50, ("x", "twice"))
    assert table.column("twice").tolist()[:3] == [2, 6, 10]
    (tmp_path / "query.sql").write_text(
        "-- half\nSELECT x, x * 2 AS twice\nFROM 'rows/a.parquet' WHERE split = 'test' ORDER BY x\n"
    )
    assert ask("sql:query.sql", tmp_path).digest == table.digest
    assert ask("sql:SELECT 1 AS x, 2 AS twice", tmp_path).digest != table.digest


def test_a_duckdb_file_is_opened_for_reading(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "a.duckdb")) as database:
        database.execute("CREATE TABLE t AS SELECT range AS x FROM range(25000)")
    table = ask("sql:SELECT * FROM t ORDER BY x", tmp_path, "duckdb:///a.duckdb")
    assert table.column("x").tolist() == list(range(25_000))
    for query in ("INSERT INTO t VALUES (1)", "SELECT 1; SELECT 2", "COPY t TO 'x.csv'", "DROP TABLE t"):
        with pytest.raises(InvalidConfig, match="one SELECT and nothing else"):
            ask(f"sql:{query}", tmp_path, "duckdb:///a.duckdb")
    with pytest.raises(InvalidData, match=r"there is no database .*b.duckdb"):
        ask("sql:SELECT 1", tmp_path, "duckdb:///b.duckdb")
    with pytest.raises(InvalidData, match=r"DuckDB refuses .*nope"):
        ask("sql:SELECT nope FROM t", tmp_path, "duckdb:///a.duckdb")


@pytest.mark.parametrize("rows_at_once", [7, 10_000])
def test_sqlite_through_sqlalchemy_a_part_at_a_time(
    shop: Path, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "_ROWS", rows_at_once)
    monkeypatch.setattr(spool, "KEPT_BYTES", 1000)
    table = ask("sql:SELECT * FROM sales WHERE name LIKE '%: 50%' ORDER BY id", shop, "sqlite:///shop.db")
    assert table.column("id").tolist() == list(range(50))
    assert table.column("price").tolist() == [n / 4 for n in range(50)]
    assert table.column("name").tolist()[7] == "item 7: 50%"
    np.testing.assert_array_equal(table.column("late"), [np.nan] * 40 + list(range(40, 50)))
    assert table.mask("late > 45").sum() == 4
    assert table.select([49, 0]).column("id").tolist() == [49, 0]
    assert (
        table.digest
        == ask("sql:SELECT * FROM sales WHERE name LIKE '%: 50%' ORDER BY id", shop, "sqlite:///shop.db").digest
    )


def test_nothing_is_written(shop: Path) -> None:
    before = (shop / "shop.db").read_bytes()
    for query in ("DELETE FROM sales", "INSERT INTO sales VALUES (1, 1, 'x', 1) RETURNING id", "DROP TABLE sales"):
        with pytest.raises(InvalidConfig, match="one SELECT and nothing else"):
            ask(f"sql:{query}", shop, "sqlite:///shop.db")
    with pytest.raises(InvalidData, match=r"readonly|query_only|attempt to write"):  # one that looks like reading
        ask("sql:WITH late AS (SELECT 1) DELETE FROM sales RETURNING id", shop, "sqlite:///shop.db")
    assert (shop / "shop.db").read_bytes() == before
    with pytest.raises(InvalidData, match="there is no database"):
        ask("sql:SELECT 1", shop, "sqlite:///absent.db")
    assert not (shop / "absent.db").exists()


def test_a_column_of_two_types_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("CREATE TABLE t (v)")
        database.executemany("INSERT INTO t VALUES (?)", [(1,), (2.5,), ("three",)])
    database.close()
    assert ask("sql:SELECT v FROM t WHERE typeof(v) <> 'text'", tmp_path, "sqlite:///a.db").column("v").tolist() == [
        1,
        2.5,
    ]
    with pytest.raises(InvalidData, match=r"column 'v' of the query holds float and int and str; CAST it"):
        ask("sql:SELECT v FROM t", tmp_path, "sqlite:///a.db")


@pytest.mark.parametrize("given", ["postgresql+psycopg://me:s3cret@127.0.0.1:1/db", "env:FAIRWAY_TEST_DATABASE"])
def test_no_password_is_ever_said(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setenv("FAIRWAY_TEST_DATABASE", "postgresql+psycopg://me:s3cret@127.0.0.1:1/db")
    with pytest.raises(InvalidData, match=r"//\*\*\*@127.0.0.1") as error:
        ask("sql:SELECT 1", tmp_path, given)
    assert "s3cret" not in str(error.value)
    assert error.value.__cause__ is None


@pytest.mark.parametrize(
    ("database", "says"),
    [
        ("nothing of the kind", "no URL of a database"),
        ("nosuch://host/db", "no URL of a database"),
        ("env:FAIRWAY_ABSENT", "environment variable FAIRWAY_ABSENT, which is not set"),
    ],
)
def test_a_database_that_is_none_is_refused(database: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=says):
        ask("sql:SELECT 1", tmp_path, database)
    with pytest.raises(InvalidConfig, match=r"query .*absent.sql cannot be read"):
        ask("sql:absent.sql", tmp_path)


@pytest.mark.postgres
def test_postgresql_is_streamed_and_read_only(tmp_path: Path, postgres_url: Any) -> None:
    query = "sql:SELECT n AS id, n::numeric / 4 AS price FROM generate_series(0, 24999) AS n ORDER BY n"
    table = ask(query, tmp_path, postgres_url)
    assert table.rows == 25_000
    assert table.column("price").tolist()[:3] == [0.0, 0.25, 0.5]
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE SEQUENCE numbers")
    with pytest.raises(InvalidData, match="read-only transaction"):
        ask("sql:SELECT nextval('numbers')", tmp_path, postgres_url)
    with pytest.raises(InvalidData, match="refuses the query"):
        ask("sql:SELECT 1 AS x INTO made", tmp_path, postgres_url)
