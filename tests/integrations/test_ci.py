"""What runs in CI: the files keep the hosts' own schemas, and their shell parts run against a stub of the hosts' APIs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairway.core.errors import InvalidConfig, InvalidData, ServerUnavailable
from fairway.loop.comment import comment
from tests.projects import edit, without_settings

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "integrations" / "github-action" / "action.yml"
TEMPLATE = ROOT / "integrations" / "gitlab" / "fairway-evaluate.gitlab-ci.yml"
TOKEN = "secret-token-of-the-job"
REPORT = "<!-- fairway-report: digits -->\n### passed\n"


class Host:
    """GitHub or GitLab, as far as comments go: 100 a page, each with an id."""

    def __init__(self) -> None:
        self.comments: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str]] = []
        self.tokens: set[str] = set()
        self.refuses: dict[str, int] = {}
        self.url = ""

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if method in self.refuses:
            return self.refuses[method], {"message": "no"}
        if method == "GET":
            page = int(path.partition("&page=")[2].partition("&")[0])
            return 200, self.comments[100 * (page - 1) : 100 * page]
        if method == "POST":
            self.comments.append({"id": len(self.comments) + 1, "body": body["body"], "html_url": f"{self.url}/c"})
            return 201, self.comments[-1]
        made = self.comments[int(path.rpartition("/")[2]) - 1]
        made["body"] = body["body"]
        return 200, made


@pytest.fixture
def host() -> Iterator[Host]:
    state = Host()

    class Handler(BaseHTTPRequestHandler):
        def reply(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            state.asked.append((self.command, self.path.partition("?")[0]))
            state.tokens.add(self.headers.get("Authorization") or self.headers.get("PRIVATE-TOKEN") or "")
            status, found = state.answer(self.command, self.path, body)
            raw = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PATCH = do_PUT = reply

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def github(host: Host, **more: str) -> dict[str, str]:
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_API_URL": host.url,
        "GITHUB_REPOSITORY": "team/models",
        "GITHUB_REF": "refs/pull/7/merge",
        "GITHUB_TOKEN": TOKEN,
        **more,
    }


def gitlab(host: Host, **more: str) -> dict[str, str]:
    return {
        "GITLAB_CI": "true",
        "CI_API_V4_URL": f"{host.url}/api/v4",
        "CI_PROJECT_ID": "12",
        "CI_MERGE_REQUEST_IID": "7",
        "FAIRWAY_GITLAB_TOKEN": TOKEN,
        **more,
    }


# the comment


@pytest.mark.parametrize(("job", "path", "update"), [
    (github, "/repos/team/models/issues/7/comments", "PATCH"),
    (gitlab, "/api/v4/projects/12/merge_requests/7/notes", "PUT"),
])  # fmt: skip
def test_a_second_run_updates_the_comment_of_the_first(host: Host, job: Any, path: str, update: str) -> None:
    host.comments = [{"id": n, "body": f"by people {n}"} for n in range(1, 151)]
    assert comment(REPORT, job(host))
    assert comment(REPORT.replace("passed", "failed"), job(host))
    comment(REPORT.replace("digits", "other"), job(host))
    assert [c["body"].splitlines()[-1] for c in host.comments[150:]] == ["### failed", "### passed"]
    assert host.asked[2] == ("POST", path)
    assert [method for method, _ in host.asked].count(update) == 1
    assert all(TOKEN in said for said in host.tokens)


def test_a_comment_that_cannot_be_changed_is_written_anew(host: Host) -> None:
    host.comments = [{"id": 1, "body": REPORT}]
    host.refuses = {"PATCH": 403}
    comment(REPORT, github(host))
    assert len(host.comments) == 2


def test_the_event_says_which_pull_request_it_is(host: Host, tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"number": 31, "pull_request": {"number": 31}}))
    comment(REPORT, github(host, GITHUB_EVENT_PATH=str(event), GITHUB_REF="refs/heads/main"))
    assert ("POST", "/repos/team/models/issues/31/comments") in host.asked


def test_a_job_that_is_about_no_pull_request_writes_nothing(host: Host) -> None:
    assert comment(REPORT, github(host, GITHUB_REF="refs/heads/main")) == ""
    assert comment(REPORT, gitlab(host, CI_MERGE_REQUEST_IID="")) == ""
    assert host.asked == []


def test_every_refusal_says_what_to_do_and_none_tells_the_token(host: Host) -> None:
    with pytest.raises(InvalidData, match="--markdown"):
        comment("hello", github(host))
    with pytest.raises(InvalidConfig, match="no job of GitHub Actions or GitLab"):
        comment(REPORT, {})
    with pytest.raises(InvalidConfig, match="GITHUB_TOKEN is not set"):
        comment(REPORT, github(host, GITHUB_TOKEN=""))
    host.refuses = {"POST": 403}
    with pytest.raises(InvalidConfig, match="pull-requests: write") as refused:
        comment(REPORT, github(host))
    host.refuses = {"GET": 500}
    with pytest.raises(ServerUnavailable, match="500") as broken:
        comment(REPORT, gitlab(host))
    assert TOKEN not in f"{refused.value}{broken.value}"


# the files


@pytest.mark.parametrize(("schema", "file"), [("vendor.github-actions", ACTION), ("vendor.gitlab-ci", TEMPLATE)])
def test_the_files_keep_their_hosts_schemas(schema: str, file: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_expression_is_pasted_into_a_script() -> None:
    """A branch's name, say, would else be run as a command."""
    for step in yaml.safe_load(ACTION.read_text())["runs"]["steps"]:
        assert "${{" not in step.get("run", "")


def shell(script: str, folder: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """As a runner does it; ``fairway`` and ``python`` are this interpreter's."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    for name, arguments in (("fairway", "-m fairway"), ("python", "")):
        (bin_folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        (bin_folder / name).chmod(0o755)
    whole = without_settings() | {"PATH": f"{bin_folder}:{os.environ['PATH']}"} | environ
    bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(bash, cwd=folder, env=whole, capture_output=True, text=True, check=False)


def action(folder: Path, host: Host, **inputs: str) -> tuple[int, str, dict[str, str]]:
    """Run the action's own steps as GitHub does: the exit code, what was printed, and the outputs."""
    made = yaml.safe_load(ACTION.read_text())
    given = {name: each.get("default", "") for name, each in made["inputs"].items()} | {"token": TOKEN} | inputs
    outputs, summary = folder / "outputs", folder / "summary"
    code, printed = 0, ""
    for step in made["runs"]["steps"]:
        if "run" not in step or step["name"] == "Install Fairway" or (code and "always()" not in step.get("if", "")):
            continue
        found = dict(line.split("=") for line in outputs.read_text().splitlines()) if outputs.exists() else {}
        environ = github(host, GITHUB_OUTPUT=str(outputs), GITHUB_STEP_SUMMARY=str(summary))
        del environ["GITHUB_TOKEN"]
        for name, value in step["env"].items():
            for key, meant in given.items():
                value = value.replace("${{ inputs." + key + " }}", meant)  # noqa: PLW2901
            for key, meant in found.items():
                value = value.replace("${{ steps.evaluate.outputs." + key + " }}", meant)  # noqa: PLW2901
            assert "${{" not in value
            environ[name] = value
        done = shell(step["run"], folder, environ)
        code, printed = code or done.returncode, printed + done.stdout + done.stderr
    return code, printed, dict(line.split("=") for line in outputs.read_text().splitlines())


def test_the_action_judges_comments_and_fails_where_the_gate_does(folder: Path, host: Host) -> None:
    edit(folder, "min = 0.9 ", "min = 0.999 ")
    code, printed, outputs = action(folder, host)
    assert (code, outputs["verdict"], outputs["exit-code"]) == (1, "failed", "1"), printed
    assert TOKEN not in printed
    (made,) = host.comments
    assert made["body"] == (folder / "fairway-report" / "evaluation.md").read_text() == (folder / "summary").read_text()
    assert {each.name for each in (folder / "fairway-report").iterdir()} == {
        f"evaluation.{kind}" for kind in ("json", "html", "md", "xml")
    }
    assert json.loads((folder / "fairway-report" / "evaluation.json").read_text())["verdict"]["outcome"] == "failed"


def test_a_host_that_refuses_the_comment_changes_no_verdict(folder: Path, host: Host) -> None:
    host.refuses = {"GET": 403}
    code, printed, outputs = action(folder, host)
    assert (code, outputs["verdict"]) == (0, "passed"), printed
    assert "::warning" in printed


def test_the_gitlab_job_judges_and_writes_a_note(folder: Path, host: Host) -> None:
    edit(folder, "min = 0.9 ", "min = 0.97 ")
    job = yaml.safe_load(TEMPLATE.read_text())["fairway-evaluate"]
    variables = {name: str(value) for name, value in job["variables"].items()} | {"FAIRWAY_INSTALL": "none"}
    done = shell("\n".join(job["script"]), folder, gitlab(host, **variables))
    assert done.returncode == 2, done.stderr
    assert "inconclusive" in host.comments[0]["body"]
    assert TOKEN not in done.stdout + done.stderr
    assert (folder / job["artifacts"]["reports"]["junit"]).is_file()
