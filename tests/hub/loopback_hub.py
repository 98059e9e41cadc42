"""A Hugging Face Hub on 127.0.0.1, kept in memory, for tests that push and load through the real client.

The server speaks the part of the Hub's HTTP protocol that ``huggingface_hub`` (2.4; written from the requests its source
makes) and ``transformers`` use to create repositories, commit, list, tag and download. Files with binary content are
"large files": they are uploaded by the Git LFS batch protocol, and a download is answered with a redirect to another
origin (``localhost`` instead of ``127.0.0.1``), as the real Hub redirects to its storage. Everything else that is asked
for is answered 501 with the name of the request, so that a test never passes on an answer nobody thought about: pull
requests, multi-part uploads, Xet, discussions, settings, Spaces' extras. Not modelled either: `.gitignore` rules, rate
limits, gated repositories, paging of long lists, and the `expand` parameter (an answer always holds all it can).

Two ways to use it:

* another process: ``subprocess.run([...], env=hub.environment())`` (``HF_ENDPOINT`` is read when the client is imported);
* this process: `LoopbackHub.attach` (the fixture ``hub_client``) replaces what the client has already read.

Both set ``HF_HUB_DISABLE_XET=1``. This is needed: with the package ``hf_xet`` installed, the client uploads every large
file by the Xet protocol, whatever the server answers. Downloads would not need it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import pytest

#: An address on which nothing answers: the proxy for every host but the loopback, so that nothing reaches a network.
_NO_NETWORK = "http://127.0.0.1:9"
_EPOCH = datetime(2024, 1, 1, tzinfo=UTC)


class HubError(Exception):
    """An answer that is an error: HTTP status, the code the client maps to an exception class (or none), message."""

    def __init__(self, status: int, code: str | None, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})


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


@dataclass(frozen=True)
class StoredFile:
    """The content of a file; `large` says that Git would only hold a pointer to it."""

    content: bytes
    large: bool

    @classmethod
    def of(cls, content: bytes) -> StoredFile:
        return cls(content, large=is_large(len(content), content[:512]))

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        return (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n".encode()
        )

    @cached_property
    def git_oid(self) -> str:
        blob = self.pointer if self.large else self.content
        return hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()

    @property
    def etag(self) -> str:
        """What names the content in the client's cache, and what it compares before it uploads the file again."""
        return self.sha256 if self.large else self.git_oid


def is_large(size: int, sample: bytes) -> bool:
    """Whether the server wants a file by LFS: binary (a NUL among the first bytes, as for Git), or above 10 MB."""
    return size > 0 and (b"\0" in sample or size > 10_000_000)


@dataclass(frozen=True)
class Commit:
    """The state of a repository: all files, the commit before, and what the author wrote."""

    oid: str
    parent: str | None
    title: str
    message: str
    date: datetime
    files: Mapping[str, StoredFile]


class Repository:
    """A repository: commits, branches and tags. Commit hashes depend on nothing but the content and its history."""

    def __init__(self, repo_id: str, repo_type: str = "model", *, private: bool = False) -> None:
        self.repo_id, self.repo_type, self.private = repo_id, repo_type, private
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        attributes = StoredFile.of(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
        self._append("main", {".gitattributes": attributes}, "initial commit", "")  # the Hub makes this one, too

    def _append(self, branch: str, files: Mapping[str, StoredFile], title: str, message: str) -> Commit:
        parent = self.branches.get(branch)
        tree = "".join(f"{path} {stored.git_oid}\n" for path, stored in sorted(files.items()))
        described = f"{self.repo_type} {self.repo_id}\n{parent}\n{len(self.commits)}\n{title}\n{message}\n{tree}"
        oid = hashlib.sha1(described.encode()).hexdigest()
        date = _EPOCH + timedelta(minutes=len(self.commits))
        commit = Commit(oid, parent, title, message, date, dict(sorted(files.items())))
        self.commits[oid] = commit
        self.branches[branch] = oid
        return commit

    def resolve(self, revision: str = "main") -> Commit:
        """The commit of a branch, a tag, or a commit hash (seven characters or more)."""
        oid = self.branches.get(revision) or self.tags.get(revision)
        if oid is None and len(revision) >= 7:
            oid = next((oid for oid in self.commits if oid.startswith(revision)), None)
        if oid is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.commits[oid]

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """All files of a revision: path -> content. Holds `.gitattributes`, as on the Hub."""
        return {path: stored.content for path, stored in self.resolve(revision).files.items()}

    def history(self, revision: str = "main") -> list[Commit]:
        """The commits that lead to a revision, last one first."""
        commits, oid = [], self.resolve(revision).oid
        while oid is not None:
            commits.append(self.commits[oid])
            oid = self.commits[oid].parent
        return commits

    def commit(
        self,
        add: Mapping[str, bytes | StoredFile],
        *,
        delete: Iterable[str] = (),
        message: str = "Update",
        description: str = "",
        branch: str = "main",
    ) -> Commit:
        """Deletes, then adds files on top of a branch. A deletion ends with a slash when it means a folder."""
        if branch not in self.branches:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {branch}")
        files = dict(self.commits[self.branches[branch]].files)
        for path in delete:
            gone = [name for name in files if (name.startswith(path) if path.endswith("/") else name == path)]
            if not gone:
                raise HubError(404, "EntryNotFound", f"A file with this name doesn't exist: {path}")
            for name in gone:
                del files[name]
        files |= {path: item if isinstance(item, StoredFile) else StoredFile.of(item) for path, item in add.items()}
        return self._append(branch, files, message, description)

    def card_data(self, revision: str) -> dict[str, Any]:
        """The metadata at the head of README.md, empty where there is none."""
        readme = self.resolve(revision).files.get("README.md")
        return {} if readme is None else front_matter(readme.content.decode())


def front_matter(text: str) -> dict[str, Any]:
    """The YAML block between two lines of dashes at the start of a card; a HubError (400) where it is not a mapping."""
    if not text.startswith("---\n"):
        return {}
    block, found, _ = text[4:].partition("\n---")
    try:
        data = yaml.safe_load(block) if found else None
    except yaml.YAMLError as error:
        raise HubError(400, None, f"Invalid YAML in the metadata: {error}") from error
    if not isinstance(data, dict):
        raise HubError(400, None, "The metadata of README.md is not a mapping between two lines of dashes")
    return data


class LoopbackHub:
    """The server, and what a test asks it. A context manager; starts at once.

    Args:
        home: Folder that takes the place of the user's ``HF_HOME`` (cache, token) for every client of this hub.
    """

    user = "tester"
    token = "hf_loopback_write"
    read_only_token = "hf_loopback_read"

    def __init__(self, home: str | Path) -> None:
        from loopback_hub_http import HubRequestHandler

        self.home = Path(home)
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[LoggedRequest] = []
        self.uploads: dict[str, bytes] = {}
        self.lock = threading.RLock()
        self.interruption: tuple[int, int] = (0, 0)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (HubRequestHandler,), {"hub": self}))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.storage_endpoint = f"http://localhost:{self.port}"
        self._thread: threading.Thread | None = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    def __enter__(self) -> LoopbackHub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the server: every later request of a client is refused. What it holds can still be looked at."""
        if self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._thread = None

    def create_repository(
        self, repo_id: str, files: Mapping[str, bytes] | None = None, *, repo_type: str = "model", private: bool = False
    ) -> Repository:
        """A repository made without a client; `files` become its second commit."""
        repository = self.repositories[repo_type, repo_id] = Repository(repo_id, repo_type, private=private)
        if files:
            repository.commit(files, message="Add files")
        return repository

    def repository(self, repo_id: str, repo_type: str = "model") -> Repository:
        """A repository that exists; KeyError otherwise."""
        return self.repositories[repo_type, repo_id]

    @property
    def downloads(self) -> list[str]:
        """Repository paths of the files whose content was sent, in order; empty when the cache was used."""
        return [request.file for request in self.requests if request.file is not None]

    def interrupt_downloads(self, after: int, times: int = 1) -> None:
        """The next `times` downloads of a file break off after `after` bytes (a file that is shorter is not cut)."""
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
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
        settings |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), _NO_NETWORK)
        settings |= dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), _NO_NETWORK)
        return settings if token is None else settings | {"HF_TOKEN": token}

    def environment(self, *, offline: bool = False, token: str | None = token) -> dict[str, str]:
        """The environment for a subprocess that knows no other Hub than this one; `token=None` leaves it anonymous."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
        return inherited | self._settings(offline=offline, token=token)

    def attach(self, patch: pytest.MonkeyPatch, *, offline: bool = False, token: str | None = token) -> None:
        """Turns the client of this very process to this hub and to its `home`, until `patch` is undone.

        The client read its settings when it was imported, so the copies it keeps are replaced: the constants, and the
        endpoint of the one API object behind its module-level functions. (An endpoint given to a call, `HfApi(endpoint=)`,
        would not do: `from_pretrained` has no such argument.) Close the client's session after `patch` is undone.
        """
        import huggingface_hub.utils
        from huggingface_hub import constants, hf_api

        patch.delenv("HF_TOKEN", raising=False)
        for name, value in self._settings(offline=offline, token=token).items():
            patch.setenv(name, value)
        cache = str(self.home / "hub")
        replaced = {
            "ENDPOINT": self.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": offline,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_TELEMETRY": True,
            "HF_HUB_DISABLE_PROGRESS_BARS": True,
            "HF_HOME": str(self.home),
            "HF_HUB_CACHE": cache,
            "HUGGINGFACE_HUB_CACHE": cache,
            "HF_ASSETS_CACHE": str(self.home / "assets"),
            "HF_TOKEN_PATH": str(self.home / "token"),
            "HF_STORED_TOKENS_PATH": str(self.home / "stored_tokens"),
        }
        for name, replacement in replaced.items():
            patch.setattr(constants, name, replacement)
        if hasattr(constants, "AGENT_HARNESSES_PATH"):  # a cached list the client asks its endpoint for once a day
            patch.setattr(constants, "AGENT_HARNESSES_PATH", str(self.home / ".agent_harnesses.json"))
        patch.setattr(hf_api.api, "endpoint", self.endpoint)
        patch.setattr("transformers.utils.hub._hf_api", None, raising=False)  # made on first use, with its endpoint
        huggingface_hub.utils.close_session()  # a session keeps the proxies of the time it was made
