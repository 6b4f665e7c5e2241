"""What a caller may bring when it asks for a model to be loaded: limits, a choice of versions, a bundle's files."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from fairway.bundle.archive import read_archive
from fairway.bundle.format import MANIFEST, SIGNATURE, Bundle, copy_bundle, decode_manifest
from fairway.core.errors import InvalidBundle, InvalidConfig, InvalidRequest, RequestTooLarge
from fairway.serving.copies import PrivateBundle
from fairway.serving.repository import Offer
from fairway.serving.routing import Route
from fairway.serving.settings import ModelServeSettings, ServeSettings

ARCHIVE = ".tar"


class Config(msgspec.Struct, frozen=True):
    """A model configuration, understood.

    Attributes
    ----------
    limits : ModelServeSettings
        What was named; the rest is as in the server's settings.
    policy : dict or None
        Triton's ``version_policy``.
    """

    limits: ModelServeSettings = ModelServeSettings()
    policy: dict[str, Any] | None = None


def read_config(name: str, config: Mapping[str, Any] | None) -> Config:
    """Understand a model configuration that came with a load.

    The keys of ``[serve.models.NAME]`` and of Triton's ``ModelConfig`` are taken where they mean something here:
    ``max_batch_size``, ``version_policy`` and ``dynamic_batching``; ``name`` must be the model's.

    Raises
    ------
    InvalidRequest
        If a key is unknown, cannot be changed at load, or has a wrong value.

    Examples
    --------
    >>> read_config("digits", {"max_batch_size": 8}).limits.max_batch
    8
    """
    own: dict[str, Any] = {}
    policy: dict[str, Any] | None = None
    for key, value in (config or {}).items():
        match key:
            case "name":
                if value != name:
                    raise InvalidRequest(f"the configuration is of {value!r}, but {name!r} is to be loaded")
            case "max_batch_size":
                own["max_batch"] = value
            case "version_policy":
                policy = _policy(value)
            case "dynamic_batching":
                own |= _batching(value)
            case _ if key in ModelServeSettings.__struct_fields__:
                own[key] = value
            case _:
                known = ", ".join(
                    ("max_batch_size", "version_policy", "dynamic_batching", *ModelServeSettings.__struct_fields__)
                )
                raise InvalidRequest(f"{key!r} cannot be changed as a model is loaded; these can: {known}")
    try:
        return Config(msgspec.convert(own, ModelServeSettings), policy)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the configuration of {name!r} is wrong: {error}") from None


def limited(settings: ServeSettings, name: str, limits: ModelServeSettings) -> ServeSettings:
    """``settings`` with ``limits`` put over what they say of ``name``."""
    given = {field: value for field in limits.__struct_fields__ if (value := getattr(limits, field)) is not None}
    if not given:
        return settings
    own = msgspec.structs.replace(settings.models.get(name, ModelServeSettings()), **given)
    return msgspec.structs.replace(settings, models={**settings.models, name: own})


def check_limits(settings: ServeSettings, name: str, limits: ModelServeSettings) -> None:
    """Raise :class:`InvalidRequest` for limits that do not go with ``settings``."""
    try:
        limited(settings, name, limits)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None


def chosen(offer: Offer, policy: Mapping[str, Any] | None, name: str) -> Offer:
    """The offer's versions that a ``version_policy`` lets through; the newest of them answers by default.

    Raises
    ------
    InvalidRequest
        If the policy names a version that there is not.
    """
    if policy is None or "all" in policy:
        return offer
    if "latest" in policy:
        kept = list(offer.versions)[-policy["latest"] :]
    else:
        kept = [version for version in offer.versions if version in policy["specific"]]
        if missing := [version for version in policy["specific"] if version not in offer.versions]:
            raise InvalidRequest(f"{name!r} has no version {missing[0]}; it has: {', '.join(offer.versions)}")
    route = offer.route if set(kept) == set(offer.versions) else Route(kept[-1])
    return Offer({version: offer.versions[version] for version in kept}, route)


def bundle_of(name: str, files: Mapping[str, bytes], limit_bytes: int) -> tuple[str | None, Bundle]:
    """The bundle that a caller brought, verified, in a private folder; and the version that it named, if any.

    Parameters
    ----------
    name : str
        What the bundle must be called.
    files : mapping of path to content
        One archive (``….tar``), or a bundle's files with its manifest; all may lie in one folder that is a version's number.
    limit_bytes : int
        Of all files together.

    Raises
    ------
    InvalidBundle
        If it is no bundle, or damaged.
    InvalidRequest
        If it is another model's bundle.
    RequestTooLarge
        If it is larger than ``limit_bytes``.
    """
    if sum(map(len, files.values())) > limit_bytes:
        raise RequestTooLarge(
            f"the files of {name!r} are larger than {limit_bytes:,} bytes; pack a smaller bundle, or register it"
        )
    version, inner = _unfolded(files)
    folder: tempfile.TemporaryDirectory[str] | None = None
    try:
        folder = tempfile.TemporaryDirectory(prefix="fairway-")
        bundle = _written(Path(folder.name), inner)
        if bundle.manifest.name != name:
            raise InvalidRequest(f"the bundle is of the model {bundle.manifest.name!r}, but {name!r} is to be loaded")
        return version, PrivateBundle(bundle, folder)
    except OSError as error:
        if folder is not None:
            folder.cleanup()
        raise InvalidConfig(
            f"the files of {name!r} cannot be written ({error}); make room in TMPDIR, and send them again"
        ) from None
    except BaseException:
        if folder is not None:
            folder.cleanup()
        raise


def _written(folder: Path, files: Mapping[str, bytes]) -> Bundle:
    if len(files) == 1 and (only := next(iter(files))).endswith(ARCHIVE):
        archive = folder / "archive.tar"
        archive.write_bytes(files[only])
        bundle = read_archive(archive, folder / "bundle")
        archive.unlink()
        return bundle
    if MANIFEST not in files:
        raise InvalidBundle(
            f"the files are no bundle: there is no {MANIFEST} among them; send every file of a packed bundle, or its .tar"
        )
    manifest = decode_manifest(files[MANIFEST], f"the {MANIFEST} that was sent")
    if wrong := sorted(set(files) - {MANIFEST, SIGNATURE} ^ set(manifest.files)):
        raise InvalidBundle(
            f"the files and their {MANIFEST} differ over {wrong[0]!r}; send every file of the bundle, and no others"
        )
    return copy_bundle(folder / "bundle", manifest, lambda file: io.BytesIO(files[file]), files.get(SIGNATURE, b""))


def _unfolded(files: Mapping[str, bytes]) -> tuple[str | None, Mapping[str, bytes]]:
    """Triton's clients write ``1/model.onnx``: a folder that is the version."""
    heads = {PurePosixPath(path).parts[:1] for path in files}
    if len(heads) == 1 and (head := heads.pop()) and head[0].isdecimal() and all("/" in path for path in files):
        return str(int(head[0])), {path.partition("/")[2]: content for path, content in files.items()}
    return None, files


def _policy(value: Any) -> dict[str, Any]:
    wrong = InvalidRequest(
        f"version_policy is {value!r}; write "
        '{"latest": {"num_versions": 1}}, {"specific": {"versions": [1]}} or {"all": {}}'
    )
    match value:
        case {"all": dict(), **rest} if not rest:
            return {"all": True}
        case {"latest": dict() as latest, **rest} if not rest:
            count = latest.get("num_versions", 1)
            if isinstance(count, int) and not isinstance(count, bool) and count > 0:
                return {"latest": count}
        case {"specific": {"versions": [*versions]}, **rest} if versions and not rest:
            if all(isinstance(version, (int, str)) and not isinstance(version, bool) for version in versions):
                return {"specific": [str(version) for version in versions]}
    raise wrong


def _batching(value: Any) -> dict[str, Any]:
    match value:
        case {"max_queue_delay_microseconds": delay, **rest} if not rest:
            return {"max_wait_us": delay}
        case {} if value == {}:
            return {}
    raise InvalidRequest(f"dynamic_batching is {value!r}; of it, only max_queue_delay_microseconds can be set")
