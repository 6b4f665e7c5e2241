"""The look of every HTML page that Fairway writes: one self-contained file, light and dark, no script, no network.

A part writes the inside of ``<main>`` as a Jinja template and its figures with Matplotlib; :func:`render_page` and
:func:`themed_svg` do the rest. Templates find macros under ``parts`` (``templates/parts.html``): ``badge(outcome)``,
``figure(svg, caption)``, ``facts(mapping)``, ``number(value)``.
"""

from __future__ import annotations

import hashlib
import io
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from fairway.core.extras import require

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

INK, MUTED, LINE, SURFACE = "#010203", "#010204", "#010205", "#fefdfc"
ACCENT, GOOD, BAD, WARN = "#010206", "#010207", "#010208", "#010209"
"""Colors to draw with: each is only a name here, and becomes a CSS variable that is right in light and in dark."""

SERIES = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b")
"""Matplotlib's own first colors (``C0`` to ``C5``): they become the page's series colors."""

_VARIABLES = {
    **{INK: "ink", MUTED: "muted", LINE: "line", SURFACE: "surface"},
    **{ACCENT: "accent", GOOD: "good", BAD: "bad", WARN: "warn"},
    **{color: f"series-{number}" for number, color in enumerate(SERIES, 1)},
    **{"#000000": "ink", "#ffffff": "surface", "#808080": "muted", "#b0b0b0": "line", "#cccccc": "line"},
}
_WORTH_CONTENTS = 4
"""Sections from which a page has a table of contents."""
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}href"


def render_page(title: str, body_template: str, **context: Any) -> str:
    """Render one self-contained page.

    Parameters
    ----------
    title : str
        The page's ``<title>`` and its only ``<h1>``.
    body_template : str
        Jinja source of what goes inside ``<main>``; every value is escaped unless it is ``Markup``.
    **context
        The template's variables. ``kicker`` is a short line above the title, ``summary`` one below it.

    Raises
    ------
    MissingExtra
        If Jinja is not installed.

    Examples
    --------
    >>> page = render_page("Digits", "<p>{{ word }}</p>", word="<script>")
    >>> "<p>&lt;script&gt;</p>" in page, page.startswith("<!doctype html>")
    (True, True)
    """
    environment = _environment()
    markup = require("markupsafe", extra="evaluate").Markup
    parts = environment.get_template("parts.html").module
    body, outline = _outlined(environment.from_string(body_template).render(parts=parts, **context))
    page = environment.get_template("page.html")
    shown = {name: context.get(name, "") for name in ("kicker", "summary")}
    contents = [(name, markup(text)) for name, text in outline] if len(outline) >= _WORTH_CONTENTS else []
    return page.render(title=title, body=markup(body), outline=contents, **shown)


def render_part(name: str, **context: Any) -> Markup:
    """The inside of one section: ``templates/analyses/NAME.html``, with the same macros as a page."""
    environment = _environment()
    parts = environment.get_template("parts.html").module
    inside = environment.get_template(f"analyses/{name}.html").render(parts=parts, **context)
    markup: Markup = require("markupsafe", extra="evaluate").Markup(inside)
    return markup


def styled_axes(width: float = 7.0, height: float = 3.0) -> tuple[Any, Any]:
    """Make a Matplotlib ``(Figure, Axes)`` in the page's look, ``width`` by ``height`` inches; draws without pyplot's state."""
    figure = require("matplotlib.figure", extra="evaluate").Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=MUTED, length=0, labelsize=9)
    axes.xaxis.label.set_color(MUTED)
    axes.yaxis.label.set_color(MUTED)
    axes.set_axisbelow(True)
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    return figure, axes


def themed_svg(figure: Any, *, title: str = "", description: str = "") -> Markup:
    """A Matplotlib figure as inline SVG whose colors and font follow the page.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Drawn with this module's colors, or with Matplotlib's defaults.
    title, description : str
        For those who cannot see it: what it is, and what it shows. The title falls back to the axes' titles.

    Raises
    ------
    MissingExtra
        If Matplotlib or Jinja is not installed.
    """
    matplotlib = require("matplotlib", extra="evaluate")
    buffer = io.BytesIO()
    title = title or "; ".join(filter(None, (axes.get_title() for axes in figure.axes))) or "figure"
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = ElementTree.fromstring(buffer.getvalue())  # noqa: S314 (Matplotlib wrote it a line above)
    _describe(svg, title, description, "f" + hashlib.sha256(buffer.getvalue() + title.encode()).hexdigest()[:10])
    ElementTree.register_namespace("", _SVG)
    text = ElementTree.tostring(svg, encoding="unicode", short_empty_elements=True)
    markup: Markup = require("markupsafe", extra="evaluate").Markup(text)
    return markup


@lru_cache(maxsize=1)
def _environment() -> Environment:
    jinja2 = require("jinja2", extra="evaluate")
    environment: Environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fairway.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment


def _outlined(body: str) -> tuple[str, list[tuple[str, str]]]:
    """The page's inside, with wide tables in reach of the keyboard and an id on every ``<h2>``; and these, with their texts."""
    taken = set(re.findall(r'\sid="([^"]+)"', body))
    outline: list[tuple[str, str]] = []

    def heading(found: re.Match[str]) -> str:
        attributes, inside = found[1], found[2]
        text = re.sub(r"<[^>]*>", "", inside).strip()
        given = re.search(r'\sid="([^"]+)"', attributes)
        name = given[1] if given else _free(re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part", taken)
        taken.add(name)
        outline.append((name, text.partition(": ")[0]))
        return found[0] if given else f'<h2 id="{name}"{attributes}>{inside}</h2>'

    body = body.replace('<div class="scroll">', '<div class="scroll" role="group" tabindex="0" aria-label="Table">')
    return re.sub(r"<h2((?:\s[^>]*)?)>(.*?)</h2>", heading, body, flags=re.DOTALL), outline


def _free(name: str, taken: set[str]) -> str:
    return next(each for each in (name, *(f"{name}-{n}" for n in range(2, len(taken) + 3))) if each not in taken)


def _describe(svg: ElementTree.Element, title: str, description: str, prefix: str) -> None:
    """Make ids unique on the page, colors variables, and the whole readable by a screen reader."""
    for unwanted in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}defs"):  # its <style> would reach the whole page
        for child in svg.findall(unwanted):
            if unwanted.endswith("metadata") or child.find(f"{{{_SVG}}}style") is not None:
                svg.remove(child)
    referenced = set(re.findall(r"#([A-Za-z][\w-]*)", " ".join(v for e in svg.iter() for v in e.attrib.values())))
    for element in svg.iter():
        name = element.attrib.pop("id", None)
        if name in referenced:
            element.set("id", f"{prefix}-{name}")
        target = element.attrib.pop(_XLINK, None)
        if target is not None:
            element.set("href", f"#{prefix}-{target[1:]}")
        for attribute, value in element.attrib.items():
            if attribute != "href":
                element.set(attribute, _themed(value, prefix))
    heading, text = ElementTree.Element(f"{{{_SVG}}}title"), ElementTree.Element(f"{{{_SVG}}}desc")
    heading.text, text.text = title, description or title
    heading.set("id", f"{prefix}-title")
    text.set("id", f"{prefix}-desc")
    svg[:0] = [heading, text]
    for dimension in ("width", "height"):
        svg.attrib.pop(dimension, None)
    width = float(svg.get("viewBox", "0 0 0 0").split()[2])
    svg.set("role", "img")
    svg.set("aria-labelledby", f"{prefix}-title {prefix}-desc")
    svg.set("style", f"max-width:{width * 4 / 3:.0f}px")  # points to CSS pixels: never larger than drawn


def _themed(value: str, prefix: str) -> str:
    value = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", value)
    value = re.sub(r"(font(?:-family)?:[^;]*?)'DejaVu Sans'[^;]*", r"\1var(--font)", value)

    def variable(found: re.Match[str]) -> str:
        color = found.group(0).lower()
        return f"var(--{_VARIABLES[color]})" if color in _VARIABLES else color

    return re.sub(r"(?<!\()#[0-9a-fA-F]{6}\b", variable, value)
