"""What a careless or hostile store, query or address may do: a clear error, nothing written, and no password in it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fairway.core.errors import InvalidConfig, InvalidData
from fairway.sources.readers.places import without_secrets
from fairway.sources.settings import DataSettings
from fairway.sources.tables import Table, load_table

pytest.importorskip("aiohttp")

ROWS = b"a,b\n1,2\n3,4\n"


class Store(BaseHTTPRequestHandler):
    """Answers as the path says."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        what = self.path.partition("?")[0].strip("/").removesuffix(".csv")
        if what.isdigit():
            self.send_error(int(what))
            return
        if what in ("redirect", "loop"):
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd" if what == "redirect" else self.path)
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(ROWS) + (1000 if what == "short" else 0)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(ROWS)


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://me:s3cret@127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_signed_address_is_read_and_its_signature_is_not_shown(store: str, tmp_path: Path) -> None:
    table = load_table(f"{store}/rows.csv?signature=s3cret&part=[1]*", root=tmp_path)
    assert table.column("a").tolist() == [1, 3]
    assert "s3cret" not in table.origin


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("403.csv", "cannot be reached: .*403"),
        ("500.csv", "cannot be reached: .*500"),
        ("404.csv", "does not exist"),
        ("redirect.csv", "cannot be reached"),
        ("loop.csv", "cannot be reached: TooManyRedirects"),
        ("short.csv", "cannot be read as .csv: .*not completed"),
    ],
)
def test_a_store_that_refuses_says_so_without_a_secret(store: str, path: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=message) as raised:
        load_table(f"{store}/{path}?token=s3cret", root=tmp_path)
    assert "s3cret" not in str(raised.value)


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="cannot be reached") as raised:
        load_table("http://me:s3cret@127.0.0.1:1/rows.csv", root=tmp_path)
    assert "s3cret" not in str(raised.value)


def ask(query: str, root: Path, database: str = "") -> Table:
    return load_table(query, settings=DataSettings(test=query, database=database), root=root)


@pytest.mark.parametrize(
    "query",
    [
        "ATTACH 'postgres://me:s3cret@host/db' AS other",
        "CREATE SECRET (TYPE postgres, PASSWORD 's3cret', HOST 'host')",
        "SELECT * FROM postgres_scan('host=h password=''s3cret''', 'a', 'b')",
        "SELECT * FROM mysql_scan('host=h passwd=s3cret', 'a', 'b')",
    ],
)
def test_no_password_of_a_query_is_shown(query: str, tmp_path: Path) -> None:
    with pytest.raises((InvalidConfig, InvalidData)) as raised:
        ask(f"sql:{query}", tmp_path)
    assert "s3cret" not in str(raised.value)
    assert "s3cret" not in without_secrets(query)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE t",
        "-- SELECT\nINSERT INTO t VALUES (2) RETURNING x",
        "/* SELECT */ ATTACH 'other.db' AS other",
        "PRAGMA query_only = OFF",
        "VACUUM INTO 'copy.db'",
    ],
)
def test_statements_that_do_more_than_read_never_reach_the_database(statement: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("CREATE TABLE t (x INTEGER)")
    database.close()
    with pytest.raises(InvalidConfig, match="one SELECT and nothing else"):
        ask(f"sql:{statement}", tmp_path, "sqlite:///a.db")
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]
    assert ask("sql:-- all\nWITH u AS (SELECT 1 AS x) SELECT * FROM u", tmp_path, "sqlite:///a.db").rows == 1


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="the query has more than one column 'x'"):
        ask("sql:SELECT 1 AS x, 2 AS x", tmp_path)
