"""The demo's last page: what happened, where it is, what to type next."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from fairway.evaluation.pages import render_page


class Act(NamedTuple):
    """One step: its verb, what was seen, the command that did it, the files it left (names or globs in the folder)."""

    title: str
    facts: list[str]
    command: str
    files: list[str]


NEXT = (
    ("cd demo-output && ../.venv/bin/fairway serve", "serve the champion again, on http://127.0.0.1:8000"),
    ("../.venv/bin/fairway infer digits --data test.parquet --rows 3", "ask it, from another terminal"),
    ("../.venv/bin/fairway status", "versions, servers, events"),
    ("../.venv/bin/fairway rollback digits", "back to the version before"),
    ("../.venv/bin/fairway --help", "the rest"),
)

_PAGE = """
{% for act in acts %}
<section>
<h2>{{ loop.index }}. {{ act.title }}</h2>
<ul>{% for fact in act.facts %}<li>{{ fact }}</li>{% endfor %}</ul>
<p>command: <code>{{ act.command }}</code></p>
{% if act.files %}<p>see: {% for name, href in act.files %}<a href="{{ href }}">{{ name }}</a> {% endfor %}</p>{% endif %}
</section>
{% endfor %}
<section>
<h2>Next</h2>
<table><caption>What to type from here</caption><thead><tr><th>command</th><th>does</th></tr></thead><tbody>
{% for command, does in next %}<tr><td><code>{{ command }}</code></td><td>{{ does }}</td></tr>{% endfor %}
</tbody></table>
</section>
"""


def write_summary(folder: Path, acts: list[Act], seconds: float) -> Path:
    """Print the summary and write ``summary.html``; returns its path."""
    table = Table(title=f"Fairway on digits, in {seconds:.0f} s", show_lines=True, width=110)
    for column in ("step", "what was seen", "command"):
        table.add_column(column)
    for act in acts:
        table.add_row(act.title, "\n".join(act.facts[:6]), act.command)
    console = Console(stderr=True, highlight=False)
    console.print(table)
    for command, does in NEXT:
        console.print(f"  {command}\n      [dim]{does}[/]")
    page = folder / "summary.html"
    linked = [act._replace(files=_links(folder, act.files)) for act in acts]  # type: ignore[arg-type]
    page.write_text(
        render_page(
            "The whole loop on digits",
            _PAGE,
            kicker="Fairway demo",
            summary=f"From two untrained models to a live, watched service in {seconds:.0f} seconds.",
            acts=linked,
            next=NEXT,
        ),
        "utf-8",
    )
    return page


def _links(folder: Path, patterns: list[str]) -> list[tuple[str, str]]:
    """The files that exist, as names and links relative to the page."""
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        found += [path] if path.is_absolute() else sorted(folder.glob(pattern))
    return [(path.name, path.relative_to(folder).as_posix()) for path in found if path.exists()]
