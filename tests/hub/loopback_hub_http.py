"""The HTTP side of `loopback_hub`: one method per request the Hub's client makes, found by its address."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, quote, unquote, urlsplit

from loopback_hub import Commit, HubError, LoggedRequest, Repository, StoredFile, front_matter, is_large

if TYPE_CHECKING:
    from loopback_hub import LoopbackHub


@dataclass
class Reply:
    """An answer; `file` is the repository path of the file that the body is, where it is one."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    file: str | None = None


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"} | (headers or {}))


_ROUTES: list[tuple[frozenset[str], re.Pattern[str], Callable[..., Reply]]] = []
_REPOSITORY = r"/api/(?P<kind>model|dataset|space)s/(?P<repo_id>[^/]+(?:/[^/]+)?)"
_PAGE = r"/(?:(?P<kind>dataset|space)s/)?(?P<repo_id>[^/]+(?:/[^/]+)?)"


def _route(methods: str, pattern: str) -> Callable[[Callable[..., Reply]], Callable[..., Reply]]:
    def register(function: Callable[..., Reply]) -> Callable[..., Reply]:
        _ROUTES.append((frozenset(methods.split()), re.compile(pattern), function))
        return function

    return register


def _listed_file(path: str, stored: StoredFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(stored.content), "oid": stored.git_oid}
    if stored.large:
        entry["lfs"] = {"oid": stored.sha256, "size": len(stored.content), "pointerSize": len(stored.pointer)}
    return entry


def _sibling(path: str, stored: StoredFile, details: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": path}
    if details:
        entry |= {"size": len(stored.content), "blobId": stored.git_oid}
        if stored.large:
            entry["lfs"] = {"sha256": stored.sha256, "size": len(stored.content), "pointerSize": len(stored.pointer)}
    return entry


def _folders(commit: Commit) -> dict[str, str]:
    """All folders of a commit with a hash of what they hold."""
    parents = {path.rsplit("/", depth)[0] for path in commit.files for depth in range(1, path.count("/") + 1)}
    within = {
        folder: [p + s.git_oid for p, s in commit.files.items() if p.startswith(folder + "/")] for folder in parents
    }
    return {folder: hashlib.sha1("".join(within[folder]).encode()).hexdigest() for folder in sorted(within)}


class HubRequestHandler(BaseHTTPRequestHandler):
    """Answers one request per connection, so that nothing is answered once the server has been stopped."""

    hub: ClassVar[LoopbackHub]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps quiet: `LoopbackHub.requests` is the log."""

    def _dispatch(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.content = self._read_body()
        try:
            for methods, pattern, function in _ROUTES:
                match = pattern.fullmatch(url.path)
                if match and self.command in methods:
                    arguments = {k: unquote(v) for k, v in match.groupdict().items() if v is not None}
                    with self.hub.lock:
                        reply = function(self, **arguments)
                    break
            else:
                raise HubError(501, None, f"the loopback hub does not know {self.command} {url.path}")
        except HubError as error:
            headers = {"X-Error-Message": error.message.splitlines()[0]} | error.headers
            headers |= {} if error.code is None else {"X-Error-Code": error.code}
            reply = _json({"error": error.message}, error.status, headers)
        self._send(reply, unquote(url.path))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _dispatch  # noqa: N815 - names http.server looks for

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send(self, reply: Reply, path: str) -> None:
        asked = self.headers.get("Range") if reply.file else None
        if asked:
            self._cut(reply, asked)
        sent_file = reply.file if self.command == "GET" and reply.status in (200, 206) else None
        self.hub.requests.append(LoggedRequest(self.command, path, reply.status, sent_file, asked))
        self.send_response(reply.status)
        for name, value in {"Connection": "close", "Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            after, times = self.hub.interruption
            broken = sent_file is not None and times > 0 and len(reply.body) > after
            if broken:
                self.hub.interruption = (after, times - 1)
            self.wfile.write(reply.body[:after] if broken else reply.body)
        self.close_connection = True

    @staticmethod
    def _cut(reply: Reply, asked: str) -> None:
        """Leaves the bytes of a `Range: bytes=first-last` header (last one included; either may be missing)."""
        total = len(reply.body)
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked)
        first, last = match.groups() if match else ("", "")
        if not first and not last:
            return  # several ranges, or another unit: a server may send the whole
        start = int(first) if first else max(total - int(last), 0)
        end = min(int(last), total - 1) if first and last else total - 1
        if start > end:
            reply.status, reply.body, reply.file = 416, b"", None
            reply.headers["Content-Range"] = f"bytes */{total}"
        else:
            reply.status, reply.body = 206, reply.body[start : end + 1]
            reply.headers["Content-Range"] = f"bytes {start}-{end}/{total}"

    # ------------------------------------------------------------------------------------------ who asks, and for what

    def _role(self) -> str | None:
        header = self.headers.get("Authorization")
        if header is None:
            return None
        roles = {f"Bearer {self.hub.token}": "write", f"Bearer {self.hub.read_only_token}": "read"}
        if header not in roles:
            raise HubError(401, None, "Invalid credentials in Authorization header")
        return roles[header]

    def _require_write(self) -> None:
        role = self._role()
        if role is None:
            # the real client takes any 401 of a repository address for this code, but only where it begins with https
            raise HubError(401, "RepoNotFound", "Invalid username or password.")
        if role != "write":
            raise HubError(403, None, "The token has no permission to write")

    def _repository(self, repo_id: str, kind: str = "model", *, write: bool = False) -> Repository:
        repository = self.hub.repositories.get((kind, repo_id))
        role = self._role()
        if repository is None or (repository.private and role is None):  # the Hub does not tell one from the other
            if role is None:
                raise HubError(401, "RepoNotFound", "Invalid username or password.")
            raise HubError(404, "RepoNotFound", "Repository not found")
        if write:
            self._require_write()
        return repository

    def _parameters(self) -> dict[str, Any]:
        return json.loads(self.content or b"{}")

    # ----------------------------------------------------------------------------------------------- accounts, creation

    @_route("GET", "/api/whoami-v2")
    def whoami(self) -> Reply:
        role = self._role()
        if role is None:
            raise HubError(401, None, "Invalid username or password.")
        access = {"accessToken": {"displayName": "loopback", "role": role}}
        return _json(
            {"type": "user", "id": "0", "name": self.hub.user, "fullname": "Tester", "orgs": [], "auth": access}
        )

    @_route("GET", "/api/agent-harnesses")
    def no_agents(self) -> Reply:
        raise HubError(404, None, "no list of agents here")  # the client carries on without

    @_route("POST", "/api/repos/create")
    def create(self) -> Reply:
        self._require_write()
        asked = self._parameters()
        repo_id = f"{asked.get('organization') or self.hub.user}/{asked['name']}"
        kind = asked.get("type") or "model"
        url = f"{self.hub.endpoint}/{'' if kind == 'model' else kind + 's/'}{repo_id}"
        if (kind, repo_id) in self.hub.repositories:
            return _json({"error": f"You already created this {kind} repo", "url": url}, 409)
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.create_repository(repo_id, repo_type=kind, private=private)
        return _json({"url": url, "name": repo_id, "id": repo_id})

    @_route("DELETE", "/api/repos/delete")
    def delete(self) -> Reply:
        asked = self._parameters()
        kind, repo_id = asked.get("type") or "model", f"{asked.get('organization') or self.hub.user}/{asked['name']}"
        self._repository(repo_id, kind, write=True)
        del self.hub.repositories[kind, repo_id]
        return _json({})

    @_route("POST", "/api/validate-yaml")
    def validate_card(self) -> Reply:
        try:
            front_matter(self._parameters()["content"])
        except HubError as error:
            return _json({"errors": [{"message": error.message}], "warnings": []}, 400)
        return _json({"errors": [], "warnings": []})

    # -------------------------------------------------------------------------------------------------------- listings

    @_route("GET", _REPOSITORY + "/refs")
    def refs(self, kind: str, repo_id: str) -> Reply:
        repository = self._repository(repo_id, kind)
        listed = {
            "branches": [
                {"name": n, "ref": f"refs/heads/{n}", "targetCommit": o} for n, o in repository.branches.items()
            ],
            "tags": [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": o} for n, o in repository.tags.items()],
        }
        return _json(listed | {"converts": [], "pullRequests": []})

    @_route("GET", _REPOSITORY + "/commits/(?P<revision>[^/]+)")
    def commits(self, kind: str, repo_id: str, revision: str) -> Reply:
        authors = [{"user": self.hub.user}]
        return _json(
            [
                {"id": c.oid, "authors": authors, "date": _date(c), "title": c.title, "message": c.message}
                for c in self._repository(repo_id, kind).history(revision)
            ]
        )

    @_route("GET", _REPOSITORY + "/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?")
    def tree(self, kind: str, repo_id: str, revision: str, folder: str = "") -> Reply:
        commit = self._repository(repo_id, kind).resolve(revision)
        folders = _folders(commit)
        if folder and folder not in folders:
            raise HubError(
                404, "EntryNotFound", f"{folder} does not exist on {revision}", {"X-Repo-Commit": commit.oid}
            )
        start = f"{folder}/" if folder else ""
        recursive = self.query.get("recursive", ["false"])[0].lower() == "true"
        entries = [{"type": "directory", "path": path, "oid": oid, "size": 0} for path, oid in folders.items()]
        entries += [_listed_file(path, stored) for path, stored in commit.files.items()]
        below = [entry for entry in entries if entry["path"].startswith(start)]
        return _json([entry for entry in below if recursive or "/" not in entry["path"][len(start) :]])

    @_route("POST", _REPOSITORY + "/paths-info/(?P<revision>[^/]+)")
    def paths_info(self, kind: str, repo_id: str, revision: str) -> Reply:
        commit = self._repository(repo_id, kind).resolve(revision)
        folders = _folders(commit)
        entries = []
        for path in parse_qs(self.content.decode()).get("paths", []):
            if path in commit.files:
                entries.append(_listed_file(path, commit.files[path]))
            elif path in folders:
                entries.append({"type": "directory", "path": path, "oid": folders[path], "size": 0})
        return _json(entries)

    # --------------------------------------------------------------------------------------------------------- writing

    @_route("POST", _REPOSITORY + "/preupload/(?P<revision>[^/]+)")
    def preupload(self, kind: str, repo_id: str, revision: str) -> Reply:
        present = self._repository(repo_id, kind, write=True).resolve(revision).files
        answers = []
        for file in self._parameters()["files"]:
            mode = "lfs" if is_large(file["size"], base64.b64decode(file["sample"])) else "regular"
            oid = present[file["path"]].etag if file["path"] in present else None
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return _json({"files": answers})

    @_route("POST", _PAGE + r"\.git/info/lfs/objects/batch")
    def lfs_batch(self, repo_id: str, kind: str = "model") -> Reply:
        self._repository(repo_id, kind, write=True)
        answers = []
        for wanted in self._parameters()["objects"]:
            answer: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.uploads:
                answer["actions"] = {"upload": {"href": f"{self.hub.storage_endpoint}/storage/{wanted['oid']}"}}
            answers.append(answer)
        return _json({"transfer": "basic", "objects": answers})

    @_route("PUT", "/storage/(?P<oid>[0-9a-f]{64})")
    def lfs_upload(self, oid: str) -> Reply:
        if hashlib.sha256(self.content).hexdigest() != oid:
            raise HubError(400, None, "the content does not have the announced SHA-256")
        self.hub.uploads[oid] = self.content
        return Reply()

    @_route("POST", _REPOSITORY + "/commit/(?P<revision>[^/]+)")
    def commit(self, kind: str, repo_id: str, revision: str) -> Reply:
        repository = self._repository(repo_id, kind, write=True)
        if "create_pr" in self.query:
            raise HubError(501, None, "the loopback hub does not know pull requests")
        header: dict[str, str] = {}
        add: dict[str, StoredFile] = {}
        delete: list[str] = []
        for line in self.content.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                header = value
            elif key == "file":
                add[value["path"]] = StoredFile(self._decoded(value), large=False)
            elif key == "lfsFile":
                if value["oid"] not in self.hub.uploads:
                    raise HubError(400, None, f"the content of {value['path']} was not uploaded")
                add[value["path"]] = StoredFile(self.hub.uploads[value["oid"]], large=True)
            elif key == "deletedFile":
                delete.append(value["path"])
            elif key == "deletedFolder":
                delete.append(value["path"].rstrip("/") + "/")
            else:
                raise HubError(501, None, f"the loopback hub does not know the commit operation {key}")
        expected = header.get("parentCommit")
        if expected and not repository.branches.get(revision, "").startswith(expected):
            raise HubError(412, None, "A commit has happened since. Please refresh and try again.")
        made = repository.commit(
            add, delete=delete, message=header["summary"], description=header.get("description", ""), branch=revision
        )
        prefix = "" if kind == "model" else f"{kind}s/"
        url = f"{self.hub.endpoint}/{prefix}{repo_id}/commit/{made.oid}"
        return _json({"success": True, "commitUrl": url, "commitOid": made.oid, "hookOutput": ""})

    @staticmethod
    def _decoded(value: dict[str, str]) -> bytes:
        try:
            return base64.b64decode(value["content"], validate=True)
        except binascii.Error as error:
            raise HubError(400, None, f"the content of {value['path']} is not base64") from error

    @_route("POST DELETE", _REPOSITORY + "/branch/(?P<branch>[^/]+)")
    def branch(self, kind: str, repo_id: str, branch: str) -> Reply:
        repository = self._repository(repo_id, kind, write=True)
        if self.command == "POST":
            if branch in repository.branches:
                raise HubError(409, None, f"Reference already exists: {branch}")
            repository.branches[branch] = repository.resolve(self._parameters().get("startingPoint", "main")).oid
        elif repository.branches.pop(branch, None) is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {branch}")
        return _json({})

    @_route("POST DELETE", _REPOSITORY + "/tag/(?P<revision>[^/]+)")
    def tag(self, kind: str, repo_id: str, revision: str) -> Reply:
        repository = self._repository(repo_id, kind, write=True)
        if self.command == "POST":
            name = self._parameters()["tag"]
            if name in repository.tags:
                raise HubError(409, None, f"Tag already exists: {name}")
            repository.tags[name] = repository.resolve(revision).oid
        elif repository.tags.pop(revision, None) is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return _json({})

    # ----------------------------------------------------------------------------------------------------- downloading

    @_route("GET HEAD", _PAGE + "/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
    def resolve(self, repo_id: str, revision: str, path: str, kind: str = "model") -> Reply:
        commit = self._repository(repo_id, kind).resolve(revision)
        headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        if path not in commit.files:
            raise HubError(404, "EntryNotFound", f"{path} does not exist on {revision}", headers)
        stored = commit.files[path]
        if not stored.large:
            headers |= {"ETag": f'"{stored.etag}"', "Content-Type": "text/plain; charset=utf-8"}
            return Reply(200, stored.content, headers, file=path)
        self.hub.uploads.setdefault(stored.sha256, stored.content)  # a file that a test put there itself
        headers |= {"X-Linked-ETag": f'"{stored.etag}"', "X-Linked-Size": str(len(stored.content))}
        headers["Location"] = f"{self.hub.storage_endpoint}/storage/{stored.sha256}?path={quote(path, safe='')}"
        return Reply(302, b"", headers)

    @_route("GET HEAD", "/storage/(?P<oid>[0-9a-f]{64})")
    def lfs_download(self, oid: str) -> Reply:
        if oid not in self.hub.uploads or "path" not in self.query:
            raise HubError(404, None, "no such object")
        if "Authorization" in self.headers:
            raise HubError(400, None, "the token of the Hub was sent to its storage")
        headers = {"ETag": f'"{oid}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        return Reply(200, self.hub.uploads[oid], headers, file=self.query["path"][0])

    # The two addresses without a last word that says what they mean: tried after all others.

    @_route("GET", _REPOSITORY + "/revision/(?P<revision>[^/]+)")
    @_route("GET", _REPOSITORY)
    def info(self, kind: str, repo_id: str, revision: str = "main") -> Reply:
        repository = self._repository(repo_id, kind)
        commit = repository.resolve(revision)
        card = repository.card_data(revision)
        details = "blobs" in self.query
        answer = {
            "id": repo_id,
            "author": repo_id.split("/")[0],
            "sha": commit.oid,
            "private": repository.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": card.get("tags") or [],
            "createdAt": _date(repository.history(revision)[-1]),
            "lastModified": _date(commit),
            "siblings": [_sibling(path, stored, details) for path, stored in commit.files.items()],
        }
        answer |= {"cardData": card} if card else {}
        answer |= {key: card[key] for key in ("library_name", "pipeline_tag") if key in card}
        return _json(answer)


def _date(commit: Commit) -> str:
    return commit.date.strftime("%Y-%m-%dT%H:%M:%S.000Z")
