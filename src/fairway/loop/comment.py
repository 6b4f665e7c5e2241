"""The verb ``comment``: an evaluation's Markdown in the pull request that it judges, updated rather than repeated."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from fairway.core.errors import InvalidConfig, InvalidData, ServerUnavailable

_MARKER = re.compile(r"<!-- fairway-report: [A-Za-z0-9._-]+ -->")
_PAGES = 30
_TIMEOUT_S = 30.0


class Thread(NamedTuple):
    """Where comments of one pull or merge request are: the host's API, its paths, and how it is asked."""

    host: str
    url: str
    comments: str
    comment: str
    headers: dict[str, str]
    update: str


def comment(text: str, environ: Mapping[str, str]) -> str:
    """Put ``text`` into the pull request that a CI job is about, in place of the comment of an earlier run.

    Parameters
    ----------
    text : str
        As ``fairway evaluate --markdown`` writes it: by its first line an earlier comment is found.
    environ : mapping of str to str
        The job's variables. GitHub Actions: ``GITHUB_TOKEN`` with ``pull-requests: write``. GitLab CI:
        ``FAIRWAY_GITLAB_TOKEN``, an access token with the scope ``api`` (a job token may not write notes).

    Returns
    -------
    str
        The comment's address; empty if the job is about no pull request, so that there is nowhere to write.

    Raises
    ------
    InvalidData
        If ``text`` is no such report.
    InvalidConfig
        If this is no CI job, or its token is missing or may not write.
    ServerUnavailable
        If the host does not answer.
    """
    found = _MARKER.match(text)
    if found is None:
        raise InvalidData("this is no report for a pull request; write one with: fairway evaluate --markdown FILE")
    thread = _thread(environ)
    if thread is None:
        return ""
    with httpx.Client(
        base_url=thread.url,
        headers=thread.headers,
        timeout=_TIMEOUT_S,
        transport=httpx.HTTPTransport(retries=2),
    ) as client:
        earlier = next(
            (each for each in _comments(client, thread) if str(each.get("body", "")).startswith(found[0])), None
        )
        body = {"body": text}
        if earlier is not None:
            answer = _ask(client, thread, thread.update, thread.comment.format(earlier["id"]), json=body)
            if answer.status_code not in (403, 404):  # somebody else's, or gone since
                return _address(_checked(answer, thread))
        return _address(_checked(_ask(client, thread, "POST", thread.comments, json=body), thread))


def _thread(environ: Mapping[str, str]) -> Thread | None:
    if environ.get("GITHUB_ACTIONS"):
        return _github(environ)
    if environ.get("GITLAB_CI"):
        return _gitlab(environ)
    raise InvalidConfig("this is no job of GitHub Actions or GitLab CI, so there is no pull request to comment on")


def _github(environ: Mapping[str, str]) -> Thread | None:
    number = _pull_request(environ)
    if not number:
        return None
    repository = f"repos/{_given(environ, 'GITHUB_REPOSITORY')}/issues"
    token = environ.get("GITHUB_TOKEN") or _given(environ, "GH_TOKEN", "GITHUB_TOKEN")
    return Thread(
        host="GitHub",
        url=environ.get("GITHUB_API_URL", "https://api.github.com"),
        comments=f"{repository}/{number}/comments",
        comment=f"{repository}/comments/{{}}",
        headers={
            "Authorization": f"Bearer {token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        },
        update="PATCH",
    )


def _pull_request(environ: Mapping[str, str]) -> str:
    """By the event that started the job; by the branch's name where the event does not say."""
    try:
        event: Any = json.loads(Path(environ.get("GITHUB_EVENT_PATH", "")).read_text("utf-8"))
    except (OSError, ValueError):
        event = {}
    if isinstance(event, dict):
        about = event.get("pull_request") or event.get("issue")
        number = event.get("number") or (about.get("number") if isinstance(about, dict) else None)
        if about and number:
            return str(int(number))
    ref = re.fullmatch(r"refs/pull/(\d+)/\w+", environ.get("GITHUB_REF", ""))
    return ref[1] if ref else ""


def _gitlab(environ: Mapping[str, str]) -> Thread | None:
    number = environ.get("CI_MERGE_REQUEST_IID")
    if not number:
        return None
    notes = f"projects/{_given(environ, 'CI_PROJECT_ID')}/merge_requests/{number}/notes"
    return Thread(
        host="GitLab",
        url=_given(environ, "CI_API_V4_URL"),
        comments=notes,
        comment=f"{notes}/{{}}",
        headers={"PRIVATE-TOKEN": _given(environ, "FAIRWAY_GITLAB_TOKEN")},
        update="PUT",
    )


def _given(environ: Mapping[str, str], name: str, shown: str = "") -> str:
    if not environ.get(name):
        raise InvalidConfig(f"{shown or name} is not set; give it to this job as a variable")
    return environ[name]


def _comments(client: httpx.Client, thread: Thread) -> Iterator[dict[str, Any]]:
    """The oldest first, page by page."""
    for page in range(1, _PAGES + 1):
        query = {"per_page": 100, "page": page, "sort": "created", "order_by": "created_at"}
        found = _checked(_ask(client, thread, "GET", thread.comments, params=query), thread)
        if not isinstance(found, list):
            raise ServerUnavailable(f"{thread.host} answers with something else than comments")
        yield from (each for each in found if isinstance(each, dict))
        if len(found) < 100:
            return


def _ask(client: httpx.Client, thread: Thread, method: str, path: str, **options: Any) -> httpx.Response:
    try:
        return client.request(method, path, **options)
    except httpx.HTTPError as error:
        raise ServerUnavailable(
            f"{thread.host} does not answer at {thread.url}: {type(error).__name__}; try again"
        ) from None


def _checked(answer: httpx.Response, thread: Thread) -> Any:
    if answer.status_code in (401, 403):
        raise InvalidConfig(
            f"{thread.host} refuses the token ({answer.status_code}); on GitHub the job needs 'pull-requests: write', "
            "on GitLab FAIRWAY_GITLAB_TOKEN the scope 'api'"
        )
    if answer.status_code >= 400:
        asked = f"{answer.request.method} {answer.request.url.path}"
        raise ServerUnavailable(f"{thread.host} answers {answer.status_code} to {asked}")
    try:
        return answer.json()
    except ValueError:
        raise ServerUnavailable(f"{thread.host} answers with something else than JSON") from None


def _address(made: Any) -> str:
    """GitHub gives the page; GitLab only the note's number."""
    return str(made.get("html_url") or f"note {made.get('id')}") if isinstance(made, dict) else ""
