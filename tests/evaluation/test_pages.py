"""Pages are one file: escaped, readable without color or sight, the same bytes for the same content."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from fairway.evaluation.pages import ACCENT, render_page, styled_axes, themed_svg


def _plot() -> Any:
    figure, axes = styled_axes()
    axes.plot([0, 1, 2], [2, 0, 1], color=ACCENT, label="<b> & 'q'")
    axes.plot([0, 1, 2], [1, 1, 1], clip_on=True)
    axes.legend()
    return figure


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_values_are_escaped_and_markup_is_not() -> None:
    page = render_page("<i>digits</i>", "{{ word }}", word="<script>alert(1)</script>", kicker="<u>")
    assert "<script" not in page
    assert "<i>" not in page
    assert "<u>" not in page


def test_a_misspelled_variable_is_an_error_not_a_hole() -> None:
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        render_page("x", "{{ absent }}")


def test_a_page_forbids_scripts_and_the_network() -> None:
    tags = _Page(render_page("x", "{{ parts.figure(svg) }}", svg=themed_svg(_plot()))).tags
    policy = next(a["content"] for tag, a in tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert not [tag for tag, a in tags if tag in ("script", "link", "img", "iframe") or "src" in a]
    assert all((a["href"] or "").startswith("#") for _, a in tags if "href" in a)


def test_a_figure_takes_every_color_from_the_page() -> None:
    svg = str(themed_svg(_plot()))
    assert "var(--accent)" in svg
    assert "var(--series-1)" in svg
    assert not re.search(r"(?:fill|stroke): #", svg)
    assert "DejaVu" not in svg


def test_a_figure_speaks_to_a_screen_reader() -> None:
    tags = _Page(str(themed_svg(_plot(), title="Loss", description="Falls, then rises."))).tags
    svg = tags[0][1]
    assert svg["role"] == "img"
    ids = {a["id"] for _, a in tags if "id" in a}
    assert set((svg["aria-labelledby"] or "").split()) <= ids


def test_two_figures_on_one_page_share_no_id() -> None:
    tags = _Page(f"{themed_svg(_plot(), title='a')}{themed_svg(_plot(), title='b')}").tags
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids)) > 4
    used = {found for _, a in tags for v in a.values() for found in re.findall(r"url\(#([^)]+)\)", v or "")}
    assert used
    assert used <= set(ids)


def test_the_same_figure_gives_the_same_bytes() -> None:
    assert themed_svg(_plot(), title="a") == themed_svg(_plot(), title="a")
