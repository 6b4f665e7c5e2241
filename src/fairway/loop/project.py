"""A project: settings, the folder they lie in, and the state beside them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fairway.core.errors import InvalidConfig, InvalidData
from fairway.settings import FILE, Settings, default_settings, read_settings
from fairway.sources.settings import DataSettings, ModelSettings

if TYPE_CHECKING:
    from fairway.registry.store import Registry
    from fairway.sources.tables import Table


class Project:
    """What the verbs work in.

    Parameters
    ----------
    settings : Settings
    root : Path
        The folder that relative paths in the settings are relative to.
    file : Path, optional
        What the settings were read from.

    Attributes
    ----------
    state : Path
        ``root/.fairway``: the local registry, the cache, and the work of each model.
    """

    def __init__(self, settings: Settings, root: Path, file: Path | None = None) -> None:
        self.settings = settings
        self.file = file
        self.root = root
        self.state = root / ".fairway"

    @classmethod
    def find(cls, path: Path | str | None = None) -> Project:
        """The project at ``path`` (a file or its folder), or that of the working directory or its parents.

        Without any ``fairway.toml`` it has default settings and the working directory as its root. Raises
        :class:`InvalidConfig` if ``path`` is given and there is no such file, or if the file is wrong.
        """
        if path is not None:
            given = Path(path)
            file = given / FILE if given.is_dir() else given
            return cls(read_settings(file), file.absolute().parent, file.absolute())
        here = Path.cwd()
        for folder in (here, *here.parents):
            if (folder / FILE).is_file():
                return cls(read_settings(folder / FILE), folder, folder / FILE)
        return cls(default_settings(), here)

    def changed(self, **tables: Any) -> Project:
        """The same project with other tables of settings."""
        return Project(msgspec.structs.replace(self.settings, **tables), self.root, self.file)

    @property
    def model(self) -> ModelSettings:
        """``[model]``, or :class:`InvalidConfig` if there is none."""
        if self.settings.model is None:
            raise InvalidConfig(f"no [model] in {self.root / FILE}; write one with: fairway init CHECKPOINT DATA")
        return self.settings.model

    @property
    def data(self) -> DataSettings:
        """``[data]``, or :class:`InvalidConfig` if there is none."""
        if self.settings.data is None:
            raise InvalidConfig(
                f"no [data] in {self.root / FILE}; name a test file there, as in: test = 'test.parquet'"
            )
        return self.settings.data

    def table(self, name: str) -> Table:
        """Load the data file that ``[data]`` calls ``name`` (``test``, ``reference`` or ``train``)."""
        from fairway.sources.tables import load_table

        given = getattr(self.data, name)
        if not given:
            raise InvalidConfig(f"[data] in {self.root / FILE} has no {name!r}; add: {name} = 'FILE.parquet'")
        return load_table(
            given, origin=given, settings=self.data, root=self.root
        )  # reports travel: no path of this machine

    @contextmanager
    def registry(self, *, create: bool = True) -> Iterator[Registry]:
        """The project's registry, open for the duration of the block."""
        from fairway.registry.store import Registry

        opened = Registry.open(self.settings.registry, create=create, root=self.root)
        try:
            yield opened
        finally:
            opened.close()

    @property
    def cache(self) -> Path:
        """Where bundles fetched from the registry are kept, by digest."""
        return self.state / "cache"

    def work(self) -> Path:
        """The folder for this model's intermediate results; a new one whenever an input to them changes.

        Where the project lies, its registry, and how it is served and released are no inputs; nor is the time that a search
        may take: with more of it, one goes on where it was.
        """
        from fairway import version
        from fairway.sources.checkpoints import REFERENCE

        settings = self.settings
        references = (self.model.source, *settings.evaluate.metrics)
        code = _modules(self.root) if any(map(REFERENCE.fullmatch, references)) else []
        data = [name for name in (self.data.test, self.data.reference, self.data.train) if name]
        tables = [
            "model",
            "data",
            "slices",
            "gate",
            "evaluate",
            "monitor",
            *(["optimize"] if self.data.reference else []),
        ]
        inputs = {table: msgspec.to_builtins(getattr(settings, table)) for table in tables}
        inputs.get("optimize", {}).pop("time_budget", None)
        identity = {
            "version": version(),
            "settings": inputs,
            "files": {name: _fingerprint(self.root / name) for name in (self.model.source, *code)},
            "data": {name: self._data_fingerprint(name) for name in data},
        }
        key = hashlib.sha256(msgspec.json.encode(identity, order="sorted")).hexdigest()[:16]
        return self.state / "work" / self.model.name / key

    def _data_fingerprint(self, given: str) -> str:
        """Of the files that are read; of a query, whose files nobody knows, of the rows that it gives."""
        from fairway.sources.readers.open import data_files
        from fairway.sources.readers.sql import PREFIX
        from fairway.sources.tables import load_table

        if given.startswith(PREFIX):
            return load_table(given, settings=self.data, root=self.root).digest
        try:
            files = data_files(given, self.root)
        except InvalidData:  # whoever reads it will say why it cannot be read
            return ""
        # a project that moved has the same local files, if they lie as before from its root
        parts = [
            f"{os.path.relpath(file.path, self.root)}:{file.sha256()}" if file.local else f"{file.path}:{file.stamp()}"
            for file in files
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _modules(root: Path) -> list[str]:
    """Every Python file of the project: which of them a callable imports is known only once it has run."""
    found: list[str] = []
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        folders[:] = [n for n in folders if n[0] not in "._" and not (here / n / "pyvenv.cfg").exists()]
        found += [(here / name).relative_to(root).as_posix() for name in files if name.endswith(".py")]
    return sorted(found)


def _fingerprint(path: Path) -> str:
    from fairway.bundle.format import file_digest

    if path.is_file():
        return file_digest(path)
    if path.is_dir():
        parts = [f"{p.relative_to(path)}:{file_digest(p)}" for p in sorted(path.rglob("*")) if p.is_file()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return ""
