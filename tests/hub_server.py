"""A hub on loopback: the calls that huggingface_hub makes to upload and download, over one dictionary of files.

python tests/hub_server.py    # serves an empty one until Ctrl-C, and prints what to set to use it
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

Files = dict[str, bytes]


@dataclass
class Repo:
    """Branches name commits, a commit is all its files."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Files] = field(default_factory=dict)

    def commit(self, branch: str, files: Files) -> str:
        """A new head of `branch`."""
        sha = hashlib.sha1(f"{branch} {len(self.commits)}".encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        return sha

    def files(self, revision: str = "main") -> Files:
        """What a branch or a commit holds."""
        return self.commits[self.branches.get(revision, revision)]


@dataclass
class Hub:
    """The state behind the server, and what tests set and read."""

    endpoint: str = ""  # what HF_ENDPOINT wants
    token: str = "hf_right"
    lfs: bool = True  # whether weights go by LFS; inside the commit like all else if not
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    breaks: dict[str, int] = field(default_factory=dict)  # path -> bytes before the connection breaks, once
    log: list[tuple[str, str, int, dict[str, str]]] = field(default_factory=list)  # method, path, status, headers

    def serve(self) -> ThreadingHTTPServer:
        """A running server at `endpoint`."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.endpoint = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server

    def asked(self, method: str, part: str) -> list[tuple[int, dict[str, str]]]:
        """Status and request headers of the calls whose path holds `part`."""
        return [(status, headers) for m, path, status, headers in self.log if m == method and part in path]


class _Handler(BaseHTTPRequestHandler):
    """One request: the first route that matches answers."""

    protocol_version = "HTTP/1.1"
    hub: Hub
    body: bytes

    def _dispatch(self) -> None:
        self.body = self._read_body()
        path = unquote(urlsplit(self.path).path)
        for method, pattern, answer in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in method.split():
                return answer(self, *found.groups())
        return self.answer(404, {"error": "no such route"})

    do_GET = do_HEAD = do_POST = do_PUT = _dispatch  # noqa: N815  # the names that http.server looks for

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""

    def answer(self, status: int, content: Any = b"", headers: dict[str, str] | None = None) -> None:
        """JSON, or bytes as they are."""
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.hub.log.append((self.command, unquote(self.path), status, dict(self.headers)))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        keep = self.hub.breaks.pop(unquote(self.path), len(content)) if self.command == "GET" else len(content)
        if self.command != "HEAD":
            self.wfile.write(content[:keep])
        self.close_connection = self.close_connection or keep < len(content)

    def error(self, status: int, code: str) -> None:
        """An error as the hub words it."""
        self.answer(status, {"error": code}, {"X-Error-Code": code, "X-Error-Message": code})

    def payload(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def allowed(self, repo_id: str, *, write: bool = False) -> Repo | None:
        """The repo, or None after an answer that refuses it."""
        repo = self.hub.repos.get(repo_id)
        secret = write or repo is None or repo.private
        if secret and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.error(401, "RepoNotFound")
        return repo or self.error(404, "RepoNotFound")


def create_repo(call: _Handler) -> None:
    """A repo with one empty commit."""
    asked = call.payload()
    repo_id = f"{asked.get('organization') or 'me'}/{asked['name']}"
    if call.headers.get("Authorization") != f"Bearer {call.hub.token}":
        return call.error(401, "Unauthorized")
    status = 409 if repo_id in call.hub.repos else 200
    if status == 200:
        call.hub.repos[repo_id] = Repo(asked.get("visibility") == "private")
        call.hub.repos[repo_id].commit("main", {})
    return call.answer(status, {"url": f"http://{call.headers['Host']}/{repo_id}"})


def create_branch(call: _Handler, repo_id: str, branch: str) -> None:
    """A branch at the head of main."""
    if repo := call.allowed(repo_id, write=True):
        status = 409 if branch in repo.branches else 200
        repo.branches.setdefault(branch, repo.branches["main"])
        call.answer(status)


def validate_card(call: _Handler) -> None:
    """The hub's own rule that a local path as base_model breaks."""
    head = yaml.safe_load(call.payload()["content"].split("---")[1]) or {}
    base = head.get("base_model")
    bad = base is not None and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base)
    call.answer(400 if bad else 200, {"errors": [{"message": f'"base_model" {base} is not valid'}] if bad else []})


def preupload(call: _Handler, repo_id: str, _: str) -> None:
    """Weights go by LFS, all else inside the commit."""
    if call.allowed(repo_id, write=True):
        paths = [file["path"] for file in call.payload()["files"]]
        modes = {path: "lfs" if call.hub.lfs and path.endswith(".safetensors") else "regular" for path in paths}
        call.answer(200, {"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]})


def lfs_batch(call: _Handler, repo_id: str) -> None:
    """Where each object is to be put."""
    if call.allowed(repo_id, write=True):
        objects = call.payload()["objects"]
        for each in objects:
            each["actions"] = {"upload": {"href": f"http://{call.headers['Host']}/objects/{each['oid']}"}}
        call.answer(200, {"objects": objects})


def put_object(call: _Handler, oid: str) -> None:
    """Keeps an LFS object under its checksum."""
    call.hub.objects[oid] = call.body
    call.answer(200 if hashlib.sha256(call.body).hexdigest() == oid else 400)


def commit(call: _Handler, repo_id: str, revision: str) -> None:
    """One line an operation: files, LFS pointers, deletions."""
    if not (repo := call.allowed(repo_id, write=True)):
        return None
    files = dict(repo.files(revision))
    for line in map(json.loads, call.body.splitlines()):
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            files[value["path"]] = call.hub.objects[value["oid"]]
        elif line["key"] == "deletedFile":
            del files[value["path"]]
    sha = repo.commit(revision, files)
    return call.answer(200, {"commitOid": sha, "commitUrl": f"http://{call.headers['Host']}/{repo_id}/commit/{sha}"})


def info(call: _Handler, repo_id: str, revision: str) -> None:
    """Which commit a revision is, and its files: what a download of the whole asks first."""
    if repo := call.allowed(repo_id):
        files = [{"rfilename": path} for path in repo.files(revision)]
        call.answer(200, {"id": repo_id, "sha": repo.branches.get(revision, revision), "siblings": files})


def tree(call: _Handler, repo_id: str, revision: str) -> None:
    """Every file of a revision."""
    if repo := call.allowed(repo_id):
        files = repo.files(revision).items()
        call.answer(200, [{"type": "file", "path": p, "size": len(c), "oid": _etag(c)} for p, c in files])


def resolve(call: _Handler, repo_id: str, revision: str, path: str) -> None:
    """A file, or the rest of it from the byte that Range names."""
    if not (repo := call.allowed(repo_id)):
        return None
    sha = repo.branches.get(revision, revision)
    if sha not in repo.commits:
        return call.error(404, "RevisionNotFound")
    headers = {"X-Repo-Commit": sha}
    content = repo.commits[sha].get(path)
    if content is None:
        return call.answer(404, b"", headers | {"X-Error-Code": "EntryNotFound"})
    headers |= {"ETag": f'"{_etag(content)}"', "Accept-Ranges": "bytes"}
    if found := re.fullmatch(r"bytes=(\d+)-", call.headers.get("Range", "")):
        start = int(found[1])
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return call.answer(206, content[start:], headers)
    return call.answer(200, content, headers)


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


_REPO = r"([^/]+/[^/]+)"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("POST", "/api/repos/create", create_repo),
    ("POST", "/api/validate-yaml", validate_card),
    ("POST", rf"/api/models/{_REPO}/branch/(.+)", create_branch),
    ("POST", rf"/api/models/{_REPO}/preupload/(.+)", preupload),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", lfs_batch),
    ("PUT", "/objects/(.+)", put_object),
    ("POST", rf"/api/models/{_REPO}/commit/(.+)", commit),
    ("GET", rf"/api/models/{_REPO}/revision/(.+)", info),
    ("GET", rf"/api/models/{_REPO}/tree/([^/]+)", tree),
    ("GET HEAD", rf"/{_REPO}/resolve/([^/]+)/(.+)", resolve),
]


def main() -> None:
    """A hub to try uploads against by hand."""
    hub = Hub()
    server = hub.serve()
    print(f"export HF_ENDPOINT={hub.endpoint} HF_TOKEN={hub.token} HF_HUB_DISABLE_XET=1", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        server.shutdown()


if __name__ == "__main__":
    main()
