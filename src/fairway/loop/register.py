"""The verb ``register``: a bundle becomes a version."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fairway.bundle.format import Bundle
from fairway.core.errors import InvalidConfig
from fairway.loop.models import find_bundle
from fairway.loop.project import Project

if TYPE_CHECKING:
    from fairway.registry.records import Version


def register(
    bundle: Bundle | Path | str,
    *,
    aliases: Sequence[str] = (),
    verify: Path | None = None,
    project: Project | None = None,
) -> Version:
    """Put ``bundle`` into the registry as the next version of its model.

    The same bundle registered again is the same version. The alias ``champion`` is not set here: it is what callers
    are served, so it moves through :func:`fairway.release`, which asks the gate.

    Parameters
    ----------
    bundle : Bundle, path or reference
        See :func:`fairway.loop.models.find_bundle`.
    aliases : sequence of str
        Names that shall point at the version, such as ``staging``.
    verify : path, optional
        A public key in PEM. The bundle is refused (:class:`InvalidSignature`) unless its private key signed it.
    """
    if "champion" in aliases:
        raise InvalidConfig(
            "the alias 'champion' moves by a release, which asks the gate; run: fairway release NAME:VERSION"
        )
    if verify is not None and not verify.is_file():
        raise InvalidConfig(f"there is no key {verify}; name a public EC key in PEM")
    project = project or Project.find()
    found = find_bundle(project, bundle)
    if verify is not None:
        from fairway.bundle.signing import verify_signature

        verify_signature(found, verify)
    with project.registry() as registry:
        return registry.register(found, aliases=aliases, actor=actor())


def actor() -> str:
    """Who acts, for the audit trail."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return "unknown"
