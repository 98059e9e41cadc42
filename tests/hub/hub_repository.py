"""What `loopback_hub` serves: model repositories in memory, their commits and files, and the errors of the protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import yaml


class HubError(Exception):
    """An answer that is an error: HTTP status, the code the client maps to an exception class (or None), message."""

    def __init__(self, status: int, code: str | None, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {"X-Error-Message": message.splitlines()[0]} | dict(headers or {})
        self.headers |= {"X-Error-Code": code} if code else {}


def is_large(size: int, sample: bytes) -> bool:
    """Whether the server wants a file by LFS: a NUL in `sample`, its first bytes (Git's binary), or above 10 MB."""
    return b"\0" in sample or size > 10_000_000


@dataclass(frozen=True)
class StoredFile:
    """The content of a file; `large` says that Git would only hold a pointer to it."""

    content: bytes
    large: bool

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def git_oid(self) -> str:
        blob = self.pointer if self.large else self.content
        return hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()

    @property
    def pointer(self) -> bytes:
        return (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n".encode()
        )

    @property
    def etag(self) -> str:
        """What names the content in the client's cache, and what it compares before it uploads a file again."""
        return self.sha256 if self.large else self.git_oid

    def described(self, path: str) -> dict[str, Any]:
        """The entry of a listing, with the field names of both kinds of listing (`tree` and `siblings`)."""
        entry = {"type": "file", "path": path, "rfilename": path, "size": len(self.content)}
        entry |= {"oid": self.git_oid, "blobId": self.git_oid}
        lfs = {"oid": self.sha256, "sha256": self.sha256, "size": len(self.content), "pointerSize": len(self.pointer)}
        return entry | ({"lfs": lfs} if self.large else {})


@dataclass(frozen=True)
class Commit:
    """The state of a repository: all its files, the commit before, and the author's words."""

    oid: str
    parent: str | None
    title: str
    description: str
    date: str
    files: Mapping[str, StoredFile]

    def listing(self) -> list[dict[str, Any]]:
        """All folders, then all files."""
        folders = {str(folder) for path in self.files for folder in PurePosixPath(path).parents} - {"."}
        oids = {folder: hashlib.sha1(f"{self.oid}/{folder}".encode()).hexdigest() for folder in sorted(folders)}
        entries = [{"type": "directory", "path": folder, "oid": oid, "size": 0} for folder, oid in oids.items()]
        return entries + [stored.described(path) for path, stored in self.files.items()]


class Repository:
    """A model repository. Its commit hashes depend on nothing but its name, its content and its history."""

    def __init__(self, repo_id: str, *, private: bool = False) -> None:
        self.repo_id, self.private = repo_id, private
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        attributes = StoredFile(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n", large=False)
        self._append("main", {".gitattributes": attributes}, "initial commit", "")  # the Hub begins with this, too

    def _append(self, branch: str, files: Mapping[str, StoredFile], title: str, description: str) -> Commit:
        parent, number = self.branches.get(branch), len(self.commits)
        tree = [(path, stored.git_oid) for path, stored in sorted(files.items())]
        oid = hashlib.sha1(repr((self.repo_id, parent, number, title, description, tree)).encode()).hexdigest()
        date = (datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=number)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        self.commits[oid] = Commit(oid, parent, title, description, date, dict(sorted(files.items())))
        self.branches[branch] = oid
        return self.commits[oid]

    def resolve(self, revision: str = "main") -> Commit:
        """The commit of a branch, a tag, or a commit hash (seven characters or more)."""
        oid = self.branches.get(revision) or self.tags.get(revision)
        if oid is None and len(revision) >= 7:
            oid = next((oid for oid in self.commits if oid.startswith(revision)), None)
        if oid is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.commits[oid]

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """All files of a revision, path -> content; `.gitattributes` is one of them, as on the Hub."""
        return {path: stored.content for path, stored in self.resolve(revision).files.items()}

    def history(self, revision: str = "main") -> list[Commit]:
        """The commits that lead to a revision, last one first."""
        commits = [self.resolve(revision)]
        while commits[-1].parent is not None:
            commits.append(self.commits[commits[-1].parent])
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
        """Deletes, then adds files on top of a branch. A path to delete ends with a slash when it means a folder."""
        if branch not in self.branches:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {branch}")
        files = dict(self.commits[self.branches[branch]].files)
        for path in delete:
            gone = [name for name in files if (name.startswith(path) if path.endswith("/") else name == path)]
            if not gone:
                raise HubError(404, "EntryNotFound", f"A file with this name doesn't exist: {path}")
            for name in gone:
                del files[name]
        for path, item in add.items():
            files[path] = item if isinstance(item, StoredFile) else StoredFile(item, is_large(len(item), item[:512]))
        return self._append(branch, files, message, description)


def front_matter(text: str) -> dict[str, Any]:
    """The YAML between two lines of dashes at the start of a model card; HubError (400) where it is not a mapping."""
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
