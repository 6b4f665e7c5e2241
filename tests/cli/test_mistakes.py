"""What a user can get wrong: one line that says what to do, an exit code that says whose fault it is, no traceback."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fairway.cli.errors import BROKEN, FAILED, MISTAKE
from tests.projects import edit, errors_of, one_line, run_here


class Mistake(NamedTuple):
    """``says``: what the line must contain. ``before``: how the project is spoiled first."""

    name: str
    command: str
    code: int
    says: tuple[str, ...]
    before: Callable[[Path], object] = lambda _: None


def changed(old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: edit(folder, old, new)


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def written(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


SETTINGS = [
    Mistake("no fairway.toml", "run", MISTAKE, ("[model]", "fairway init"), without("fairway.toml")),
    Mistake("no such project", "run -p nowhere.toml", MISTAKE, ("nowhere.toml does not exist", "fairway init")),
    Mistake("not TOML", "status", MISTAKE, ("fairway.toml", "line 2"), changed('name = "digits"', "name = ")),
    Mistake("unknown key", "run", MISTAKE, ("line 3", "did you mean 'source'?"), changed("source =", "sorce =")),
    Mistake("unknown table", "run", MISTAKE, ("'gates'", "did you mean 'gate'?"), changed("[gate]", "[gates]")),
    Mistake("wrong type", "serve", MISTAKE, ("line 25", "serve.port", "int"), changed("port = 0", 'port = "any"')),
    Mistake("impossible value", "status", MISTAKE, ("release.weight",), changed("[release]", "[release]\nweight = 2")),
    Mistake(
        "unknown metric",
        "run",
        MISTAKE,
        ("did you mean 'accuracy_score'?",),
        changed("accuracy_score", "accuracy_scor"),
    ),
    Mistake("wrong bound", "run", MISTAKE, ("max_drop", "max_rise"), changed("max = 5000", "max_drop = 1")),
    Mistake("no test file", "run", MISTAKE, ("test.parquet", "does not exist"), without("test.parquet")),
    Mistake("damaged data", "evaluate", MISTAKE, ("test.parquet",), written("test.parquet", b"PAR1 no more")),
    Mistake("no label column", "run", MISTAKE, ("'digt'", "digit"), changed('label = "digit"', 'label = "digt"')),
    Mistake("no such feature", "run", MISTAKE, ("pixl_*",), changed("pixel_*", "pixl_*")),
    Mistake("bad SQL", "run", MISTAKE, ("faint", "ink <<"), changed("ink < 0.25", "ink << ")),
    Mistake("unknown column in SQL", "run", MISTAKE, ("inc", "ink"), changed("ink < 0.25", "inc < 0.25")),
    Mistake("no reference", "optimize", MISTAKE, ("reference", "add: reference =")),
]

SOURCES = [
    Mistake("no source", "run", MISTAKE, ("nothing.onnx", "does not exist"), changed("good.onnx", "nothing.onnx")),
    Mistake("damaged ONNX", "run", MISTAKE, ("good.onnx",), written("good.onnx", b"\x08\x07nonsense")),
    Mistake("untrusted pickle", "run", MISTAKE, ("model.pkl", "trust"), changed("good.onnx", "model.pkl")),
    Mistake("no module", "run", MISTAKE, ("trane",), changed("good.onnx", "trane:fit")),
    Mistake("no callable", "run", MISTAKE, ("did you mean 'fit'?",), changed("good.onnx", "train:fitt")),
    Mistake(
        "callable raises", "run", MISTAKE, ("no such day", "train.py, line 8"), changed("good.onnx", "train:broken")
    ),
    Mistake("init: no file", "init no.onnx test.parquet -o new.toml", MISTAKE, ("no.onnx does not exist",)),
    Mistake("init: no data", "init good.onnx no.parquet -o new.toml", MISTAKE, ("no.parquet",)),
    Mistake("init: a pickle", "init model.pkl test.parquet -o new.toml", MISTAKE, ("--trust",)),
    Mistake("init: exists", "init good.onnx test.parquet", MISTAKE, ("fairway.toml exists", "--replace")),
    Mistake("init: no label", "init good.onnx test.parquet -o new.toml --label day", MISTAKE, ("'day'", "it has:")),
    Mistake("init: bad name", "init good.onnx test.parquet -o new.toml --name a/b", MISTAKE, ("'a/b'", "--name")),
    Mistake("init: no folder", "init good.onnx test.parquet -o no/where.toml", MISTAKE, ("no/where.toml", "--out")),
]

BUNDLES = [
    Mistake("no bundle", "register nothing.fairway", MISTAKE, ("nothing.fairway does not exist", "fairway pack")),
    Mistake("not a bundle", "register good.onnx", MISTAKE, ("good.onnx is not a bundle", "fairway pack")),
    Mistake("a folder", "evaluate .", MISTAKE, ("is not a bundle", "fairway pack")),
    Mistake("not an archive", "register some.tar", MISTAKE, ("some.tar",), written("some.tar", b"tar?")),
    Mistake("compressed out", "pack -o digits.tar.gz", MISTAKE, ("digits.tar.gz", ".tar")),
    Mistake("pack over a file", "pack -o train.py --replace", MISTAKE, ("train.py", "not a bundle")),
    Mistake("pack over a folder", "pack -o . --replace", MISTAKE, ("not a bundle",)),
    Mistake("no key", "pack --sign nothing.pem", MISTAKE, ("nothing.pem",)),
    Mistake("no public key", "register good.onnx --verify nothing.pem", MISTAKE, ("nothing.pem",)),
]

USAGE = [
    Mistake("unknown command", "evalute", MISTAKE, ("evalute", "fairway --help")),
    Mistake("unknown option", "run --fast", MISTAKE, ("--fast", "fairway run --help")),
    Mistake("unknown option before the command", "--fast run", MISTAKE, ("--fast", "fairway --help")),
    Mistake("missing argument", "register", MISTAKE, ("bundle", "fairway register --help")),
    Mistake("not a number", "release digits --weight much", MISTAKE, ("--weight", "much", "fairway release --help")),
    Mistake("too many arguments", "rollback digits letters", MISTAKE, ("letters", "fairway rollback --help")),
    Mistake("conflicting options", "release digits --watch --promote", MISTAKE, ("one at a time",)),
    Mistake("neither file nor inputs", "infer digits", MISTAKE, ("--data", "--inputs")),
    Mistake("no rows", "infer digits --data test.parquet --rows 0", MISTAKE, ("--rows",)),
]

REGISTRY = [
    Mistake("no registry", "status", BROKEN, ("there is no registry", "fairway run")),
    Mistake("no registry to serve", "serve", BROKEN, ("there is no registry", "fairway run")),
    Mistake(
        "registry in a file",
        "status",
        BROKEN,
        ("good.onnx",),
        changed("[serve]", '[registry]\nurl = "sqlite:///good.onnx/registry.db"\n[serve]'),
    ),
    Mistake(
        "registry is no database",
        "status",
        BROKEN,
        ("good.onnx",),
        changed("[serve]", '[registry]\nurl = "sqlite:///good.onnx"\n[serve]'),
    ),
    Mistake(
        "unreachable registry",
        "status",
        BROKEN,
        ("127.0.0.1:1", "registry"),
        changed("[serve]", '[registry]\nurl = "postgresql://me:secret@127.0.0.1:1/fairway"\n[serve]'),
    ),
    Mistake(
        "unknown database",
        "status",
        MISTAKE,
        ("mysql", "postgresql"),
        changed("[serve]", '[registry]\nurl = "mysql://127.0.0.1/fairway"\n[serve]'),
    ),
    Mistake("no server", "infer digits --data test.parquet --url http://127.0.0.1:1", BROKEN, ("fairway serve",)),
    Mistake("no URL", "infer digits --data test.parquet --url localhost", MISTAKE, ("localhost", "http://")),
]

RELEASED = [
    Mistake("unknown model", "status letters", MISTAKE, ("'letters'", "known here: digits")),
    Mistake("unknown model to release", "release letters:1", MISTAKE, ("letters", "digits")),
    Mistake("unknown version", "release digits:9", MISTAKE, ("digits:9",)),
    Mistake("unknown alias", "observe digits@staging", MISTAKE, ("digits@staging",)),
    Mistake("bad reference", "observe digits@", MISTAKE, ("NAME:VERSION",)),
    Mistake("unknown baseline", "evaluate digits:2 --baseline staging", MISTAKE, ("digits@staging",)),
    Mistake("bad reference to serve", "serve digits:x", MISTAKE, ("digits:x", "NAME:VERSION")),
    Mistake("weight of two", "release digits --weight 2", MISTAKE, ("weight", "2")),
    Mistake("weight of nothing", "release digits --weight 0", MISTAKE, ("weight", "0")),
    Mistake("another challenger", "release digits:1", MISTAKE, ("--promote", "fairway rollback digits")),
    Mistake("force without a reason", "release digits:2 --force", MISTAKE, ("--reason",)),
    Mistake("promote a version", "release digits:2 --promote", MISTAKE, ("fairway release digits --promote",)),
    Mistake("roll back a version", "rollback digits:2", MISTAKE, ("fairway rollback digits",)),
    Mistake("champion by alias", "register some.tar --alias champion", MISTAKE, ("fairway release",)),
    Mistake("an alias to ask", "infer digits@champion --inputs {}", MISTAKE, ("NAME:VERSION",)),
]


def by_name(mistakes: list[Mistake]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("mistake", mistakes, ids=[mistake.name for mistake in mistakes])


def check(mistake: Mistake, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mistake.before(folder)
    before = files(folder)
    answer = run_here(capfd, *mistake.command.split())
    assert "Traceback" not in answer.err
    said = errors_of(answer.err)
    assert len(said) == 1, answer.err
    assert said[0].startswith("error: ")
    for part in mistake.says:
        assert part in said[0]
    assert answer.out == ""
    assert answer.code == mistake.code
    assert files(folder) == before


def files(folder: Path) -> dict[str, int]:
    """Whatever a refused command could have spoiled: everything but its own state."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not {".fairway", "__pycache__"} & set(path.parts)
    }


@by_name([*SETTINGS, *SOURCES, *BUNDLES, *USAGE, *REGISTRY])
def test_a_mistake(mistake: Mistake, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    check(mistake, folder, capfd)


@by_name(RELEASED)
def test_a_mistake_with_versions(mistake: Mistake, released: Path, capfd: pytest.CaptureFixture[str]) -> None:
    check(mistake, released, capfd)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_port_that_is_taken(released: Path, taken: int, capfd: pytest.CaptureFixture[str]) -> None:
    check(Mistake("", f"serve --port {taken}", MISTAKE, (str(taken), "[serve]")), released, capfd)


def test_a_port_that_is_none(released: Path, capfd: pytest.CaptureFixture[str]) -> None:
    check(Mistake("", "serve --port 70000", MISTAKE, ("70000", "[serve]")), released, capfd)


def test_going_back_where_there_is_nothing(released: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_here(capfd, "rollback", "digits").code == 0
    check(Mistake("", "rollback digits", MISTAKE, ("digits:1", "fairway release")), released, capfd)
    check(Mistake("", "release digits --promote", MISTAKE, ("no challenger", "fairway release")), released, capfd)


def test_a_bundle_that_was_altered(released: Path, capfd: pytest.CaptureFixture[str]) -> None:
    packed = next(released.glob(".fairway/work/digits/*/packed*.fairway"))
    shutil.copytree(packed, released / "digits.fairway")
    model = released / "digits.fairway" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    for command in ("register", "evaluate", "serve"):
        check(Mistake("", f"{command} digits.fairway", MISTAKE, ("model.onnx", "altered")), released, capfd)


def test_a_bundle_of_tomorrow(released: Path, capfd: pytest.CaptureFixture[str]) -> None:
    packed = next(released.glob(".fairway/work/digits/*/packed*.fairway"))
    shutil.copytree(packed, released / "digits.fairway")
    manifest = released / "digits.fairway" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"format":1', b'"format":99'))
    check(Mistake("", "register digits.fairway", BROKEN, ("format 99", "upgrade")), released, capfd)


def test_a_page_where_none_can_be_written(released: Path, capfd: pytest.CaptureFixture[str]) -> None:
    check(Mistake("", "observe digits --html good.onnx/page.html", MISTAKE, ("good.onnx", "--html")), released, capfd)


def test_a_version_without_evidence_is_refused(released: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = next(released.glob(".fairway/work/digits/*/source.fairway"))
    assert run_here(capfd, "register", source).code == 0
    run_here(capfd, "rollback", "digits")
    check(Mistake("", "release digits:3", FAILED, ("no evaluation", "pack")), released, capfd)


def test_the_same_in_json(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for command, code in (("evaluate nothing.fairway --json", "invalid_bundle"), ("run --fast --json", "usage")):
        answer = run_here(capfd, *command.split())
        assert one_line(answer.err)
        assert answer.document["error"]["code"] == code
        assert answer.err == f"error: {answer.document['error']['message']}\n"
        assert answer.code == MISTAKE
