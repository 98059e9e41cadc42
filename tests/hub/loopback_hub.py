"""A Hugging Face Hub on 127.0.0.1, kept in memory, for tests that push and load through the real client.

The server speaks the part of the Hub's HTTP protocol that ``huggingface_hub`` (2.4; written from the requests its source
makes) and ``transformers`` use for model repositories: create, commit, list, tag, download, delete. Binary files are
"large": they are uploaded by the Git LFS batch protocol and a download is redirected to another origin (``localhost``
instead of ``127.0.0.1``), as the real Hub redirects to its storage. Any other request is answered 501 with its name, so
that no test passes on an answer nobody thought about: other kinds of repositories, pull requests, multi-part uploads,
Xet, discussions, settings. Not modelled: `.gitignore` rules, rate limits, gating, paging, the rules of a model card
beyond valid YAML, and `expand` (an answer always holds all it can).

Two ways to use it, because the client reads ``HF_ENDPOINT`` and ``HF_HOME`` when it is imported:

* another process: ``subprocess.run([...], env=hub.environment())``;
* this process: `LoopbackHub.attach` (the fixture ``hub_client``) replaces the copies the client keeps.

Both set ``HF_HUB_DISABLE_XET=1``. It is needed for uploads: with the package ``hf_xet`` installed, the client sends every
large file by the Xet protocol, whatever the server offers.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

from hub_repository import HubError, Repository, StoredFile, front_matter, is_large

if TYPE_CHECKING:
    import pytest

#: An address where nothing answers, as the proxy to every host but this one: no request can leave the machine.
NO_NETWORK = "http://127.0.0.1:9"


@dataclass(frozen=True)
class LoggedRequest:
    """One request: `file` is the repository path of the file whose bytes were sent, if any were."""

    method: str
    path: str
    status: int
    file: str | None = None
    byte_range: str | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.status}"


class LoopbackHub:
    """The server and what a test asks it. A context manager; it runs from the moment it is made until `stop`.

    Args:
        home: Folder that takes the place of the user's ``HF_HOME`` (cache, token) for every client of this hub.
    """

    user = "tester"
    token = "hf_loopback_write"
    read_only_token = "hf_loopback_read"

    def __init__(self, home: str | Path) -> None:
        self.home = Path(home)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[LoggedRequest] = []
        self.uploads: dict[str, bytes] = {}  # SHA-256 -> content of a large file, which a commit may name later
        self.lock = threading.RLock()
        self.interruption = (0, 0)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.storage_endpoint = f"http://localhost:{self._server.server_port}"
        self._thread: threading.Thread | None = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the server: later requests are refused. Repositories and log can still be looked at."""
        if self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._thread = None

    def create_repository(
        self, repo_id: str, files: Mapping[str, bytes] | None = None, *, private: bool = False
    ) -> Repository:
        """A repository made without a client, in the place of any of that name; `files` become its second commit."""
        repository = self.repositories[repo_id] = Repository(repo_id, private=private)
        if files:
            repository.commit(files, message="Add files")
        return repository

    def repository(self, repo_id: str) -> Repository:
        """A repository that exists; KeyError otherwise."""
        return self.repositories[repo_id]

    def large_file(self, sha256: str) -> bytes | None:
        """The content of a large file that was uploaded or is in a commit; None where it is neither."""
        commits = (commit for repository in self.repositories.values() for commit in repository.commits.values())
        committed = (stored.content for commit in commits for stored in commit.files.values() if stored.etag == sha256)
        return self.uploads[sha256] if sha256 in self.uploads else next(committed, None)

    @property
    def downloads(self) -> list[str]:
        """Repository paths of the files whose content was sent, in order; nothing is added when the cache is used."""
        return [request.file for request in self.requests if request.file is not None]

    def interrupt_downloads(self, after: int, times: int = 1) -> None:
        """The next `times` downloads of a file break off after `after` bytes (shorter files are not concerned)."""
        self.interruption = (after, times)

    def _settings(self, *, offline: bool, token: str | None) -> dict[str, str]:
        settings = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.home),
            "HF_HUB_OFFLINE": "1" if offline else "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "DISABLE_SAFETENSORS_CONVERSION": "1",  # transformers would ask a service, from a thread of its own
        }
        proxies = {"http_proxy": NO_NETWORK, "https_proxy": NO_NETWORK, "all_proxy": NO_NETWORK}
        proxies["no_proxy"] = "127.0.0.1,localhost"
        settings |= proxies | {name.upper(): value for name, value in proxies.items()}
        return settings | ({} if token is None else {"HF_TOKEN": token})

    def environment(self, *, offline: bool = False, token: str | None = token) -> dict[str, str]:
        """The environment of a subprocess that knows no other Hub than this one; `token=None` leaves it anonymous."""
        foreign = ("HF_", "HUGGING", "TRANSFORMERS_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return inherited | self._settings(offline=offline, token=token)

    def attach(self, patch: pytest.MonkeyPatch, *, offline: bool = False, token: str | None = token) -> None:
        """Turns the client of this very process to this hub and to its `home`, until `patch` is undone.

        What the client read on import is replaced: its constants, and the endpoint of the API objects behind the
        module-level functions. (Passing `endpoint=` instead would not do: `from_pretrained` has no such argument.) The
        client's session holds proxies of the time it was made; call `huggingface_hub.close_session` after the undoing.
        """
        from huggingface_hub import close_session, constants, hf_api
        from transformers.utils import hub as transformers_hub

        patch.delenv("HF_TOKEN", raising=False)
        for name, value in self._settings(offline=offline, token=token).items():
            patch.setenv(name, value)
        patch.setattr(constants, "ENDPOINT", self.endpoint)
        template = self.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_OFFLINE", offline)
        for name in ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"):
            patch.setattr(constants, name, True)
        patch.setattr(constants, "HF_HOME", str(self.home))
        folders = {"HF_HUB_CACHE": "hub", "HUGGINGFACE_HUB_CACHE": "hub", "HF_ASSETS_CACHE": "assets"}
        files = {"HF_TOKEN_PATH": "token", "HF_STORED_TOKENS_PATH": "stored_tokens", "AGENT_HARNESSES_PATH": "agents"}
        for name, place in (folders | files).items():
            patch.setattr(constants, name, str(self.home / place), raising=False)  # not every version has the last one
        patch.setattr(hf_api.api, "endpoint", self.endpoint)
        patch.setattr(transformers_hub, "_hf_api", None, raising=False)  # made again on its next use
        close_session()


@dataclass
class Reply:
    """An answer; `file` is the repository path of the file that the body is, where it is one."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    file: str | None = None


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"} | dict(headers or {}))


_ROUTES: list[tuple[list[str], re.Pattern[str], Callable[..., Reply]]] = []
_ID = "(?P<repo_id>[^/]+(?:/[^/]+)?)"


def _route(methods: str, pattern: str) -> Callable[[Callable[..., Reply]], Callable[..., Reply]]:
    def register(function: Callable[..., Reply]) -> Callable[..., Reply]:
        _ROUTES.append((methods.split(), re.compile(pattern.replace("{id}", _ID)), function))
        return function

    return register


class _Handler(BaseHTTPRequestHandler):
    """Answers one request per connection, so that nothing is answered once the server was stopped."""

    hub: ClassVar[LoopbackHub]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps quiet: `LoopbackHub.requests` is the log."""

    def _dispatch(self) -> None:
        url = urlsplit(self.path)
        self.query, self.body = parse_qs(url.query), self._read_body()
        candidates = ((pattern.fullmatch(url.path), f) for methods, pattern, f in _ROUTES if self.command in methods)
        match, function = next(((match, f) for match, f in candidates if match), (None, None))
        try:
            if match is None or function is None:
                raise HubError(501, None, f"the loopback hub does not know {self.command} {url.path}")
            with self.hub.lock:
                reply = function(self, **{k: unquote(v) for k, v in match.groupdict().items() if v is not None})
        except HubError as error:
            reply = _json({"error": error.message}, error.status, error.headers)
        self._send(reply, unquote(url.path))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _dispatch

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send(self, reply: Reply, path: str) -> None:
        asked = self.headers.get("Range") if reply.file else None
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", asked or ""):  # another form may be answered with the whole
            total, start = len(reply.body), int(match[1])
            end = min(int(match[2] or total), total - 1)
            reply.status, reply.body = (206, reply.body[start : end + 1]) if start <= end else (416, b"")
            reply.headers["Content-Range"] = f"bytes {start}-{end}/{total}" if start <= end else f"bytes */{total}"
        sent_file = reply.file if self.command == "GET" and reply.status in (200, 206) else None
        self.hub.requests.append(LoggedRequest(self.command, path, reply.status, sent_file, asked))
        self.send_response(reply.status)
        for name, value in {"Connection": "close", "Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        after, times = self.hub.interruption
        if sent_file is not None and times > 0 and len(reply.body) > after:
            self.hub.interruption, reply.body = (after, times - 1), reply.body[:after]
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    # ------------------------------------------------------------------------------------------------------- who asks

    def _role(self) -> str | None:
        header = self.headers.get("Authorization")
        roles = {None: None, f"Bearer {self.hub.token}": "write", f"Bearer {self.hub.read_only_token}": "read"}
        if header not in roles:
            raise HubError(401, None, "Invalid credentials in Authorization header")
        return roles[header]

    def _require_write(self) -> None:
        if self._role() is None:
            # the code is what the client makes of a 401 from a real repository, whose address begins with https
            raise HubError(401, "RepoNotFound", "Invalid username or password.")
        if self._role() != "write":
            raise HubError(403, None, "The token has no permission to write")

    def _repository(self, repo_id: str, *, write: bool = False) -> Repository:
        repository = self.hub.repositories.get(repo_id)
        if self._role() is None and (repository is None or repository.private):  # the Hub does not tell which
            raise HubError(401, "RepoNotFound", "Invalid username or password.")
        if repository is None:
            raise HubError(404, "RepoNotFound", "Repository not found")
        if write:
            self._require_write()
        return repository

    def _asked(self) -> dict[str, Any]:
        return json.loads(self.body or b"{}")

    # --------------------------------------------------------------------------------------------- accounts, creation

    @_route("GET", "/api/whoami-v2")
    def whoami(self) -> Reply:
        if self._role() is None:
            raise HubError(401, None, "Invalid username or password.")
        access = {"accessToken": {"displayName": "loopback", "role": self._role()}}
        return _json(
            {"type": "user", "id": "0", "name": self.hub.user, "fullname": "Tester", "orgs": [], "auth": access}
        )

    @_route("GET", "/api/agent-harnesses")
    def no_agents(self) -> Reply:
        raise HubError(404, None, "no list of agents here")  # the client asks once and carries on

    def _named(self) -> str:
        asked = self._asked()
        if asked.get("type", "model") != "model":
            raise HubError(501, None, f"the loopback hub does not know repositories of type {asked['type']}")
        return f"{asked.get('organization') or self.hub.user}/{asked['name']}"

    @_route("POST", "/api/repos/create")
    def create(self) -> Reply:
        self._require_write()
        asked, repo_id = self._asked(), self._named()
        url = f"{self.hub.endpoint}/{repo_id}"
        if repo_id in self.hub.repositories:
            return _json({"error": "You already created this model repo", "url": url}, 409)
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.create_repository(repo_id, private=private)
        return _json({"url": url, "name": repo_id})

    @_route("DELETE", "/api/repos/delete")
    def delete(self) -> Reply:
        del self.hub.repositories[self._repository(self._named(), write=True).repo_id]
        return _json({})

    @_route("POST", "/api/validate-yaml")
    def validate_card(self) -> Reply:
        try:
            front_matter(self._asked()["content"])
        except HubError as error:
            return _json({"errors": [{"message": error.message}], "warnings": []}, 400)
        return _json({"errors": [], "warnings": []})

    # ------------------------------------------------------------------------------------------------------- listings

    @_route("GET", "/api/models/{id}/refs")
    def refs(self, repo_id: str) -> Reply:
        repository = self._repository(repo_id)
        heads = [{"name": k, "ref": f"refs/heads/{k}", "targetCommit": v} for k, v in repository.branches.items()]
        tags = [{"name": k, "ref": f"refs/tags/{k}", "targetCommit": v} for k, v in repository.tags.items()]
        return _json({"branches": heads, "tags": tags, "converts": []})

    @_route("GET", "/api/models/{id}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?")
    def tree(self, repo_id: str, revision: str, folder: str = "") -> Reply:
        commit = self._repository(repo_id).resolve(revision)
        start = f"{folder}/" if folder else ""
        below = [entry for entry in commit.listing() if entry["path"].startswith(start)]
        if not below:
            raise HubError(404, "EntryNotFound", f"{folder} does not exist", {"X-Repo-Commit": commit.oid})
        recursive = self.query.get("recursive", [""])[0].lower() == "true"
        return _json([entry for entry in below if recursive or "/" not in entry["path"][len(start) :]])

    @_route("POST", "/api/models/{id}/paths-info/(?P<revision>[^/]+)")
    def paths_info(self, repo_id: str, revision: str) -> Reply:
        commit = self._repository(repo_id).resolve(revision)
        wanted = parse_qs(self.body.decode()).get("paths", [])
        return _json([entry for entry in commit.listing() if entry["path"] in wanted])

    # -------------------------------------------------------------------------------------------------------- writing

    @_route("POST", "/api/models/{id}/preupload/(?P<revision>[^/]+)")
    def preupload(self, repo_id: str, revision: str) -> Reply:
        present = self._repository(repo_id, write=True).resolve(revision).files
        answers = []
        for file in self._asked()["files"]:
            mode = "lfs" if is_large(file["size"], base64.b64decode(file["sample"])) else "regular"
            oid = present[file["path"]].etag if file["path"] in present else None
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return _json({"files": answers})

    @_route("POST", r"/{id}\.git/info/lfs/objects/batch")
    def lfs_batch(self, repo_id: str) -> Reply:
        self._repository(repo_id, write=True)
        objects = [{"oid": wanted["oid"], "size": wanted["size"]} for wanted in self._asked()["objects"]]
        for answer in objects:
            if self.hub.large_file(answer["oid"]) is None:  # without an action, the client uploads nothing
                answer["actions"] = {"upload": {"href": f"{self.hub.storage_endpoint}/storage/{answer['oid']}"}}
        return _json({"transfer": "basic", "objects": objects})

    @_route("PUT", "/storage/(?P<oid>[0-9a-f]{64})")
    def lfs_upload(self, oid: str) -> Reply:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, None, "the content does not have the announced SHA-256")
        self.hub.uploads[oid] = self.body
        return Reply()

    @_route("POST", "/api/models/{id}/commit/(?P<revision>[^/]+)")
    def commit(self, repo_id: str, revision: str) -> Reply:
        repository = self._repository(repo_id, write=True)
        if "create_pr" in self.query:
            raise HubError(501, None, "the loopback hub does not know pull requests")
        header: dict[str, str] = {}
        add: dict[str, StoredFile] = {}
        delete: list[str] = []
        for line in self.body.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                header = value
            elif key == "file":
                add[value["path"]] = StoredFile(base64.b64decode(value["content"]), large=False)
            elif key == "lfsFile" and (content := self.hub.large_file(value["oid"])) is not None:
                add[value["path"]] = StoredFile(content, large=True)
            elif key in ("deletedFile", "deletedFolder"):
                delete.append(value["path"].rstrip("/") + ("/" if key == "deletedFolder" else ""))
            else:
                raise HubError(
                    400, None, f"cannot commit {value.get('path')} as {key}: unknown, or not uploaded before"
                )
        expected = header.get("parentCommit") or ""
        if not repository.branches.get(revision, expected).startswith(expected):
            raise HubError(412, None, "A commit has happened since. Please refresh and try again.")
        title, description = header["summary"], header.get("description", "")
        made = repository.commit(add, delete=delete, message=title, description=description, branch=revision)
        return _json({"commitUrl": f"{self.hub.endpoint}/{repo_id}/commit/{made.oid}", "commitOid": made.oid})

    @_route("POST DELETE", "/api/models/{id}/branch/(?P<name>[^/]+)")
    def branch(self, repo_id: str, name: str) -> Reply:
        repository = self._repository(repo_id, write=True)
        return self._set(repository, repository.branches, name, self._asked().get("startingPoint", "main"))

    @_route("POST DELETE", "/api/models/{id}/tag/(?P<revision>[^/]+)")
    def tag(self, repo_id: str, revision: str) -> Reply:
        repository = self._repository(repo_id, write=True)
        return self._set(repository, repository.tags, self._asked().get("tag", revision), revision)

    def _set(self, repository: Repository, names: dict[str, str], name: str, revision: str) -> Reply:
        if self.command == "POST" and name in names:
            raise HubError(409, None, f"Reference already exists: {name}")
        if self.command == "POST":
            names[name] = repository.resolve(revision).oid
        elif names.pop(name, None) is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {name}")
        return _json({})

    # ---------------------------------------------------------------------------------------------------- downloading

    @_route("GET HEAD", "/{id}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
    def resolve(self, repo_id: str, revision: str, path: str) -> Reply:
        commit = self._repository(repo_id).resolve(revision)
        headers = {"X-Repo-Commit": commit.oid}
        if path not in commit.files:
            raise HubError(404, "EntryNotFound", f"{path} does not exist on {revision}", headers)
        stored = commit.files[path]
        if not stored.large:
            headers |= {"ETag": f'"{stored.etag}"', "Accept-Ranges": "bytes", "Content-Type": "text/plain"}
            return Reply(200, stored.content, headers, file=path)
        headers |= {"X-Linked-ETag": f'"{stored.etag}"', "X-Linked-Size": str(len(stored.content))}
        headers["Location"] = f"{self.hub.storage_endpoint}/storage/{stored.sha256}?path={quote(path, safe='')}"
        return Reply(302, b"", headers)

    @_route("GET HEAD", "/storage/(?P<oid>[0-9a-f]{64})")
    def lfs_download(self, oid: str) -> Reply:
        if "Authorization" in self.headers:
            raise HubError(400, None, "the token of the Hub was sent to its storage")
        content = self.hub.large_file(oid)
        if content is None or "path" not in self.query:
            raise HubError(404, None, "no such object")
        headers = {"ETag": f'"{oid}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        return Reply(200, content, headers, file=self.query["path"][0])

    @_route("GET", "/api/models/{id}/revision/(?P<revision>[^/]+)")
    @_route("GET", "/api/models/{id}")  # last, since the address of every other listing begins like it
    def info(self, repo_id: str, revision: str = "main") -> Reply:
        repository = self._repository(repo_id)
        history = repository.history(revision)
        readme = history[0].files.get("README.md")
        card = front_matter(readme.content.decode()) if readme else {}
        answer: dict[str, Any] = {"id": repo_id, "author": repo_id.split("/")[0], "sha": history[0].oid}
        answer |= {"private": repository.private, "gated": False, "disabled": False, "downloads": 0, "likes": 0}
        answer |= {"createdAt": history[-1].date, "lastModified": history[0].date, "tags": card.get("tags") or []}
        answer |= {key: card[key] for key in ("library_name", "pipeline_tag") if key in card}
        siblings = [stored.described(path) for path, stored in history[0].files.items()]
        if "blobs" not in self.query:
            siblings = [{"rfilename": sibling["rfilename"]} for sibling in siblings]
        return _json(answer | {"cardData": card, "siblings": siblings})
