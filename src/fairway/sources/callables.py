"""``module:callable`` sources: the project's own code makes the model."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from fairway.core.errors import FairwayError, InvalidSource
from fairway.sources.mapping import nearest


def call_source(reference: str, root: Path) -> tuple[Any, Path | None]:
    """Import ``module`` from ``root`` (else from what is installed) and call ``callable`` without arguments.

    Returns
    -------
    made : object
        What it returned; if the name is no function but a ready model, that.
    file : Path or None
        The module's source file.

    Raises
    ------
    InvalidSource
        If there is no such module or name, or the code raises; the message says where.
    """
    with _importing_from(root):
        found = _found(reference, root)
        try:
            made = found() if callable(found) and not _is_model(found) else found
        except FairwayError:
            raise
        except Exception as error:
            raise InvalidSource(_blame(reference, error, root)) from error
    file = getattr(sys.modules.get(reference.partition(":")[0]), "__file__", None)
    return made, Path(file) if file else None


def import_object(reference: str, root: Path) -> Any:
    """What ``module:name`` names, imported from ``root`` as :func:`call_source` does; nothing is called."""
    with _importing_from(root):
        return _found(reference, root)


def _found(reference: str, root: Path) -> Any:
    module_name, _, name = reference.partition(":")
    try:
        module = _import(module_name, root)
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] == module_name.partition(".")[0]:
            raise InvalidSource(f"no module {module_name!r} in {root.absolute()} or installed") from None
        raise InvalidSource(_blame(reference, error, root)) from error
    except Exception as error:
        raise InvalidSource(_blame(reference, error, root)) from error
    if not hasattr(module, name):
        public = [known for known in vars(module) if not known.startswith("_")]
        raise InvalidSource(
            f"module {module_name!r} has no {name!r}{nearest(name, public)}; it has: {', '.join(public)}"
        )
    return getattr(module, name)


def _is_model(found: Any) -> bool:
    """Torch modules and Keras models are callable, but are not to be called here."""
    return not isinstance(found, type) and any(hasattr(found, method) for method in ("predict", "transform", "forward"))


def _import(name: str, root: Path) -> ModuleType:
    """A module of that name in ``root`` wins over one that is installed or was imported from elsewhere."""
    base = root.absolute().joinpath(*name.split("."))
    file = next((f for f in (base.with_suffix(".py"), base / "__init__.py") if f.is_file()), None)
    known = sys.modules.get(name)
    if file is None or (known is not None and getattr(known, "__file__", None) == str(file)):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _importing_from(root: Path) -> Iterator[None]:
    entry = str(root.absolute())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


def _blame(reference: str, error: Exception, root: Path) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(root.absolute())] or frames
    return (
        f"{reference} raised {type(error).__name__}: {error} ({Path(ours[-1].filename).name}, line {ours[-1].lineno})"
    )
