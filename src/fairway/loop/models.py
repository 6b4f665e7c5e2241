"""From what a user types to a bundle: a reference, a directory, an archive, or the project's own source."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairway.bundle.format import MANIFEST, Bundle, read_bundle
from fairway.core.errors import FairwayError, InvalidBundle, InvalidConfig, ModelNotFound
from fairway.core.manifest import ModelRef
from fairway.loop.progress import SILENT, Progress
from fairway.loop.project import Project

if TYPE_CHECKING:
    from fairway.registry.records import Version
    from fairway.registry.store import Registry

ARCHIVES = (".tar",)


def find_bundle(project: Project, model: Bundle | Path | str | None, progress: Progress = SILENT) -> Bundle:
    """The bundle that ``model`` means.

    Parameters
    ----------
    model : Bundle, path, str or None
        A bundle, its directory or archive, a registered ``NAME``, ``NAME:VERSION`` or ``NAME@ALIAS`` (a bare name is
        its champion), or ``None`` for the project's source, converted now unless nothing has changed since.
    """
    if isinstance(model, Bundle):
        return model
    if model is None:
        return source_bundle(project, progress)
    path = Path(model)
    if (path / MANIFEST).is_file() or path.is_dir():
        return read_bundle(path)
    if path.name.endswith(ARCHIVES) and path.is_file():
        from fairway.bundle.archive import read_archive
        from fairway.bundle.format import file_digest

        return read_archive(path, project.cache / f"archive-{file_digest(path)[:16]}")
    if path.exists():
        raise InvalidConfig(f"{path} is not a bundle; name it as the source in fairway.toml, then: fairway pack")
    if path.suffix in (".fairway", *ARCHIVES) or len(path.parts) > 1:  # surely no reference
        raise InvalidBundle(f"{path} does not exist; make a bundle with: fairway pack")
    with project.registry(create=False) as registry:
        return registry.fetch(find_version(registry, str(model)), project.cache)


def find_version(registry: Registry, text: str) -> Version:
    """The registered version that ``text`` names; a bare name is its champion, or its newest if it has none."""
    ref = ModelRef.parse(text)
    if ref.version is None and ref.alias is None:
        versions = registry.versions(ref.name)
        if not versions:
            raise ModelNotFound(text, registry.models())
        champion = registry.aliases(ref.name).get("champion")
        return next((v for v in versions if v.number == champion), versions[-1])
    return registry.version(ref)


def source_bundle(project: Project, progress: Progress = SILENT) -> Bundle:
    """The project's source as a bundle, converted and checked; reused while its inputs are unchanged."""
    target = project.work() / "source.fairway"
    if target.is_dir():
        try:
            return read_bundle(target)
        except FairwayError:  # damaged since: make it again
            import shutil

            shutil.rmtree(target)
    from fairway.sources.convert import convert

    progress.step(f"converting {project.model.source}")
    reference = project.table("reference") if project.data.reference else project.table("test")
    given: dict[str, Any] = {
        "name": project.model.name,
        "task": project.model.task,
        "reference": reference,
        "label": project.data.label,
        "features": project.data.features,
        "labels": project.model.labels,
        "trust": project.model.trust,
        "root": project.root,
    }
    if project.model.engine == "torch":
        return _on_torch(project, target, given)
    return convert(project.model.source, destination=target, options=project.model.options, **given)


def _on_torch(project: Project, target: Path, given: dict[str, Any]) -> Bundle:
    """The source as an exported program, compared with its graph. It is opened once: to open it may be to train it."""
    from fairway.sources.checkpoints import open_source
    from fairway.sources.convert import convert
    from fairway.sources.huggingface import load_network, with_head
    from fairway.sources.torch_bundles import torch_bundle

    opened = open_source(project.model.source, root=project.root, trust=project.model.trust)
    known = opened.kind == "huggingface" or (opened.kind == "torch" and hasattr(opened.model, "forward"))
    if not known:
        raise InvalidConfig(
            f'{project.model.source} is no torch module ({opened.kind}), which the torch engine needs; leave engine = "torch" '
            "out of [model]"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".graph.", dir=target.parent) as folder:
        converted = convert(opened, destination=Path(folder) / "source.fairway", **given)
        if opened.kind == "huggingface":
            module = with_head(load_network(Path(opened.model), project.model.task)[0], project.model.task)
        else:
            module = opened.model.eval()
        return torch_bundle(converted, module, target, options=project.model.options)
