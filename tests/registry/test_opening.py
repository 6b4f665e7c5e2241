"""Opening: made on first use, migrated when older, refused when newer, never half-way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

import fairway.registry.migrations
from fairway.core.errors import InvalidConfig, NewerFormat, RegistryUnavailable
from fairway.registry import schema
from fairway.registry.settings import RegistrySettings
from fairway.registry.store import Registry
from fairway.registry.tables import HEAD, KNOWN, metadata
from tests.registry.conftest import MakeBundle


def execute(settings: RegistrySettings, statement: str) -> None:
    engine = create_engine(settings.url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_by_default_everything_is_in_one_folder(tmp_path: Path, make_bundle: MakeBundle) -> None:
    with Registry.open(root=tmp_path) as registry:
        registry.register(make_bundle(0))
    assert (tmp_path / ".fairway" / "registry.db").is_file()
    assert (tmp_path / ".fairway" / "blobs" / "sha256").is_dir()


def test_a_registry_that_does_not_exist_is_not_made_unasked(settings: RegistrySettings) -> None:
    with pytest.raises(RegistryUnavailable, match="fairway register"):
        Registry.open(settings, create=False)
    if settings.url.startswith("sqlite"):
        assert not Path(settings.url.removeprefix("sqlite:///")).parent.exists()


def test_an_empty_file_is_no_registry_yet(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    settings = RegistrySettings(url="sqlite:///empty.db").at(tmp_path)
    with pytest.raises(RegistryUnavailable, match="fairway register"):
        Registry.open(settings, create=False)
    Registry.open(settings).close()
    Registry.open(settings, create=False).close()


def test_a_registry_of_a_newer_fairway_is_refused_and_left_alone(settings: RegistrySettings) -> None:
    Registry.open(settings).close()
    execute(settings, f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(NewerFormat, match=r"9999.*pip install -U fairway"):
        Registry.open(settings)
    execute(settings, f"UPDATE {schema.VERSION_TABLE} SET version_num = '{HEAD}'")
    Registry.open(settings, create=False).close()


def test_a_database_in_use_by_another_program_keeps_its_tables(settings: RegistrySettings) -> None:
    if settings.url.startswith("sqlite"):
        Path(settings.url.removeprefix("sqlite:///")).parent.mkdir()
    execute(settings, "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    execute(settings, "INSERT INTO alembic_version VALUES ('cafe')")
    with Registry.open(settings) as registry:
        assert registry.models() == ()
    execute(settings, "DELETE FROM alembic_version WHERE version_num = 'cafe'")


def test_tables_of_the_same_names_are_a_clear_error_and_nothing_is_changed(settings: RegistrySettings) -> None:
    if settings.url.startswith("sqlite"):
        Path(settings.url.removeprefix("sqlite:///")).parent.mkdir()
    execute(settings, "CREATE TABLE windows (pane INTEGER)")
    for _ in range(2):
        with pytest.raises(RegistryUnavailable, match="windows"):
            Registry.open(settings)
    execute(settings, "INSERT INTO windows (pane) VALUES (1)")


def test_the_migrations_make_the_tables_that_the_code_uses(settings: RegistrySettings) -> None:
    Registry.open(settings).close()
    engine = create_engine(settings.url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        options = {
            "compare_type": True,
            "include_object": lambda _, name, kind, *__: kind != "table" or name != schema.VERSION_TABLE,
        }
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
    engine.dispose()


def test_the_code_knows_every_migration_and_needs_the_last() -> None:
    scripts = ScriptDirectory(str(Path(fairway.registry.migrations.__file__).parent))
    assert tuple(s.revision for s in reversed(list(scripts.walk_revisions()))) == KNOWN
    assert scripts.get_heads() == [HEAD]


def test_opening_a_registry_that_is_up_to_date_does_without_alembic_fsspec_and_postgres(
    tmp_path: Path, make_bundle: MakeBundle
) -> None:
    with Registry.open(root=tmp_path) as registry:
        registry.register(make_bundle(0))
    script = (
        "import sys; from fairway.registry.store import Registry\n"
        "registry = Registry.open(create=False)\n"
        "registry.fetch('digits', __import__('pathlib').Path('cache'))\n"
        "heavy = {'alembic', 'fsspec', 'psycopg', 'sqlalchemy.orm', 'onnx', 'pandas', 'sklearn', 'torch'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://ann:secret@db/fairway", "mysql"),
        ("not a url", "cannot be read"),
        ("postgresql://ann:sec@ret:word@db:port/fairway", "cannot be read"),
        ("postgresql://ann:s3cr@sec@db.invalid/fairway", "%40"),
    ],
)
def test_a_url_that_names_no_registry_is_an_error_without_its_password(url: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=message) as caught:
        Registry.open(RegistrySettings(url=url), root=tmp_path)
    assert "sec" not in str(caught.value).replace("password", "")
