"""The loopback hub against the real clients: what holds here, tests that push and load our own models may rely on."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    ModelCardData,
    constants,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder
from loopback_hub import LoopbackHub, Repository
from transformers import BertConfig, BertModel

BINARY = bytes(range(256)) * 40


@pytest.fixture
def api(hub_client: LoopbackHub) -> HfApi:
    return HfApi()


@pytest.fixture
def repository(hub_client: LoopbackHub) -> Repository:
    return hub_client.create_repository("lab/model", {"config.json": b"{}", "weights/a.bin": BINARY})


def tiny_bert(seed: int = 0) -> BertModel:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertModel(BertConfig(vocab_size=32, max_position_embeddings=16, **sizes)).eval()


def same_weights(one: BertModel, two: BertModel) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class TestRepositories:
    def test_create_makes_a_repository_with_a_first_commit(self, api: HfApi, hub: LoopbackHub) -> None:
        url = api.create_repo("lab/model")
        assert (url.repo_id, url.endpoint, str(url)) == ("lab/model", hub.endpoint, f"{hub.endpoint}/lab/model")
        assert list(hub.repository("lab/model").files()) == [".gitattributes"]

    def test_name_alone_goes_to_the_user_of_the_token(self, api: HfApi, hub: LoopbackHub) -> None:
        assert api.whoami()["name"] == hub.user
        assert api.create_repo("model").repo_id == f"{hub.user}/model"

    def test_second_creation_needs_exist_ok(self, api: HfApi, hub: LoopbackHub) -> None:
        api.create_repo("lab/model")
        api.upload_file(path_or_fileobj=b"kept", path_in_repo="a.txt", repo_id="lab/model")
        with pytest.raises(HfHubHTTPError, match="already created"):
            api.create_repo("lab/model")
        assert api.create_repo("lab/model", exist_ok=True).repo_id == "lab/model"
        assert hub.repository("lab/model").files()["a.txt"] == b"kept"

    def test_other_kinds_are_refused_by_name(self, api: HfApi) -> None:
        with pytest.raises(HfHubHTTPError, match="does not know repositories of type dataset"):
            api.create_repo("lab/data", repo_type="dataset")

    def test_deleted_repository_is_gone(self, api: HfApi, repository: Repository) -> None:
        api.delete_repo("lab/model")
        assert not api.repo_exists("lab/model")
        with pytest.raises(RepositoryNotFoundError):
            api.delete_repo("lab/model")
        api.delete_repo("lab/model", missing_ok=True)

    def test_information_holds_files_and_card(self, api: HfApi, repository: Repository) -> None:
        repository.commit({"README.md": b"---\nlibrary_name: reid_zoo\ntags: [retrieval]\n---\n# Model\n"})
        information = api.model_info("lab/model", files_metadata=True)
        assert information.sha == repository.resolve().oid
        assert (information.library_name, information.tags) == ("reid_zoo", ["retrieval"])
        assert information.card_data is not None
        assert information.card_data.tags == ["retrieval"]
        files = {sibling.rfilename: sibling for sibling in information.siblings or []}
        assert list(files) == [".gitattributes", "README.md", "config.json", "weights/a.bin"]
        assert files["config.json"].lfs is None
        large = files["weights/a.bin"].lfs
        assert large is not None
        assert large.size == len(BINARY)
        bare = api.model_info("lab/model").siblings or []
        assert [(sibling.rfilename, sibling.size) for sibling in bare] == [(name, None) for name in files]


class TestAccess:
    def test_private_repository_needs_a_token(self, api: HfApi, hub: LoopbackHub) -> None:
        hub.create_repository("lab/secret", {"config.json": b"{}", "a.bin": BINARY}, private=True)
        assert api.model_info("lab/secret").private
        with pytest.raises(RepositoryNotFoundError, match="401 Client Error") as caught:
            api.model_info("lab/secret", token=False)
        assert caught.value.response.status_code == 401
        with pytest.raises(RepositoryNotFoundError):
            hf_hub_download("lab/secret", "config.json", token=False)
        assert hub.downloads == []
        path = hf_hub_download("lab/secret", "a.bin", token=hub.read_only_token)
        assert Path(path).read_bytes() == BINARY

    def test_created_private(self, api: HfApi, hub: LoopbackHub) -> None:
        api.create_repo("lab/secret", private=True)
        assert hub.repository("lab/secret").private
        assert not api.repo_exists("lab/secret", token=False)

    def test_writing_needs_a_token_that_may(self, api: HfApi, repository: Repository, hub: LoopbackHub) -> None:
        before = repository.resolve().oid
        for token, status in ((False, 401), (hub.read_only_token, 403)):
            with pytest.raises(HfHubHTTPError) as caught:
                api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="lab/model", token=token)
            assert caught.value.response.status_code == status
            with pytest.raises(HfHubHTTPError):
                api.create_repo("lab/other", token=token)
        assert repository.resolve().oid == before
        assert list(hub.repositories) == ["lab/model"]

    def test_unknown_token_is_refused_everywhere(self, api: HfApi, repository: Repository) -> None:
        with pytest.raises(HfHubHTTPError, match="Invalid user token"):
            api.whoami(token="hf_other")
        with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
            api.model_info("lab/model", token="hf_other")


class TestCommits:
    def test_text_goes_into_the_commit_and_binary_by_lfs(self, api: HfApi, hub: LoopbackHub) -> None:
        api.create_repo("lab/model")
        operations = [CommitOperationAdd("a.txt", b"text"), CommitOperationAdd("b/c.bin", BINARY)]
        made = api.create_commit("lab/model", operations, commit_message="Two files", commit_description="Long words")
        repository = hub.repository("lab/model")
        assert made.oid == repository.resolve().oid
        assert made.commit_url == f"{hub.endpoint}/lab/model/commit/{made.oid}"
        assert repository.files() == {
            ".gitattributes": repository.files()[".gitattributes"],
            "a.txt": b"text",
            "b/c.bin": BINARY,
        }
        assert [commit.title for commit in repository.history()] == ["Two files", "initial commit"]
        assert repository.resolve().description == "Long words"
        stored = repository.resolve().files
        assert (stored["a.txt"].large, stored["b/c.bin"].large) == (False, True)
        assert [request.method for request in hub.requests if request.path.startswith("/storage/")] == ["PUT"]

    def test_content_that_is_there_is_not_sent_again(self, api: HfApi, hub: LoopbackHub) -> None:
        for name in ("lab/one", "lab/two"):
            api.create_repo(name)
            api.upload_file(path_or_fileobj=BINARY, path_in_repo="a.bin", repo_id=name)
        assert len([request for request in hub.requests if request.method == "PUT"]) == 1
        assert hub.repository("lab/two").files()["a.bin"] == BINARY

    def test_unchanged_files_make_no_commit(self, api: HfApi, repository: Repository) -> None:
        before = repository.resolve().oid
        operations = [CommitOperationAdd("config.json", b"{}"), CommitOperationAdd("weights/a.bin", BINARY)]
        assert api.create_commit("lab/model", operations, commit_message="Again").oid == before
        assert repository.resolve().oid == before

    def test_folder_is_uploaded_and_its_files_are_deleted(
        self, api: HfApi, repository: Repository, tmp_path: Path
    ) -> None:
        (tmp_path / "folder" / "deep").mkdir(parents=True)
        (tmp_path / "folder" / "deep" / "b.bin").write_bytes(BINARY + b"b")
        (tmp_path / "folder" / "empty.txt").write_bytes(b"")
        api.upload_folder(folder_path=tmp_path / "folder", path_in_repo="new", repo_id="lab/model")
        expected = [".gitattributes", "config.json", "new/deep/b.bin", "new/empty.txt", "weights/a.bin"]
        assert list(repository.files()) == expected
        assert repository.files()["new/deep/b.bin"] == BINARY + b"b"
        api.delete_folder("new", repo_id="lab/model")
        api.delete_file("config.json", repo_id="lab/model")
        assert list(repository.files()) == [".gitattributes", "weights/a.bin"]

    def test_deletion_of_nothing_is_an_error(self, api: HfApi, repository: Repository) -> None:
        with pytest.raises(EntryNotFoundError, match="doesn't exist"):
            api.delete_file("other.json", repo_id="lab/model")

    def test_copy(self, api: HfApi, repository: Repository) -> None:
        operations: list[CommitOperationCopy | CommitOperationDelete] = [
            CommitOperationCopy("weights/a.bin", "weights/b.bin"),
            CommitOperationCopy("config.json", "old.json"),
            CommitOperationDelete("config.json"),
        ]
        api.create_commit("lab/model", operations, commit_message="Copy")
        assert list(repository.files()) == [".gitattributes", "old.json", "weights/a.bin", "weights/b.bin"]
        assert repository.files()["weights/b.bin"] == BINARY

    def test_commit_on_an_outdated_parent_is_refused(self, api: HfApi, repository: Repository) -> None:
        parent = repository.resolve().oid
        api.upload_file(path_or_fileobj=b"1", path_in_repo="n", repo_id="lab/model", parent_commit=parent)
        with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
            api.upload_file(path_or_fileobj=b"2", path_in_repo="n", repo_id="lab/model", parent_commit=parent)
        assert repository.files()["n"] == b"1"

    def test_pull_request_is_refused_by_name(self, api: HfApi, repository: Repository) -> None:
        with pytest.raises(HfHubHTTPError, match="does not know pull requests"):
            api.upload_file(path_or_fileobj=b"1", path_in_repo="n", repo_id="lab/model", create_pr=True)

    def test_model_card_is_pushed_and_checked(self, hub_client: LoopbackHub, repository: Repository) -> None:
        card = ModelCard.from_template(ModelCardData(license="apache-2.0"), model_description="Small.")
        card.push_to_hub("lab/model")
        assert ModelCard.load("lab/model").data.license == "apache-2.0"
        for card_text, message in ((b"---\n- a\n---\n", "not a mapping"), (b"---\na: [\n---\n", "Invalid YAML")):
            with pytest.raises(ValueError, match=message):
                HfApi().upload_file(path_or_fileobj=card_text, path_in_repo="README.md", repo_id="lab/model")

    def test_same_history_gives_the_same_hashes(self, hub: LoopbackHub) -> None:
        first, second = (hub.create_repository("lab/model", {"a": b"1"}).resolve().oid for _ in range(2))
        assert first == second != hub.create_repository("lab/model", {"a": b"2"}).resolve().oid


class TestListings:
    def test_tree(self, api: HfApi, repository: Repository) -> None:
        assert [entry.path for entry in api.list_repo_tree("lab/model")] == ["weights", ".gitattributes", "config.json"]
        everything = ["weights", ".gitattributes", "config.json", "weights/a.bin"]
        assert [entry.path for entry in api.list_repo_tree("lab/model", recursive=True)] == everything
        assert [entry.path for entry in api.list_repo_tree("lab/model", "weights")] == ["weights/a.bin"]
        assert api.list_repo_files("lab/model") == [".gitattributes", "config.json", "weights/a.bin"]
        with pytest.raises(EntryNotFoundError):
            list(api.list_repo_tree("lab/model", "other"))

    def test_paths_info_leaves_out_what_is_missing(self, api: HfApi, repository: Repository) -> None:
        file, folder = sorted(
            api.get_paths_info("lab/model", ["weights/a.bin", "none", "weights"]), key=lambda e: -len(e.path)
        )
        assert isinstance(file, RepoFile)
        assert isinstance(folder, RepoFolder)
        assert (file.size, file.blob_id) == (len(BINARY), repository.resolve().files["weights/a.bin"].git_oid)
        assert file.lfs is not None
        assert file.lfs.sha256 == repository.resolve().files["weights/a.bin"].sha256

    def test_git_hash_of_a_file_is_git_s(self, api: HfApi, repository: Repository) -> None:
        # `printf '{}' | git hash-object --stdin`
        (entry,) = api.get_paths_info("lab/model", "config.json")
        assert isinstance(entry, RepoFile)
        assert entry.blob_id == "9e26dfeeb6e641a33dae4961196235bdb965b21b"

    def test_branches_and_tags(self, api: HfApi, repository: Repository) -> None:
        first = repository.resolve().oid
        api.create_tag("lab/model", tag="v1")
        api.create_branch("lab/model", branch="feature/x")
        api.upload_file(path_or_fileobj=b"2", path_in_repo="config.json", repo_id="lab/model", revision="feature/x")
        refs = api.list_repo_refs("lab/model")
        assert {tag.name: tag.target_commit for tag in refs.tags} == {"v1": first}
        branches = {branch.name: branch.target_commit for branch in refs.branches}
        assert branches == {"main": first, "feature/x": repository.resolve("feature/x").oid}
        assert repository.files("feature/x")["config.json"] == b"2"
        for create in (
            lambda: api.create_tag("lab/model", tag="v1"),
            lambda: api.create_branch("lab/model", branch="main"),
        ):
            with pytest.raises(HfHubHTTPError, match="already exists"):
                create()
        api.delete_tag("lab/model", tag="v1")
        api.delete_branch("lab/model", branch="feature/x")
        assert (list(repository.branches), repository.tags) == (["main"], {})
        with pytest.raises(RevisionNotFoundError):
            api.delete_tag("lab/model", tag="v1")

    def test_commit_to_what_is_no_branch_is_an_error(self, api: HfApi, repository: Repository) -> None:
        api.create_tag("lab/model", tag="v1")
        with pytest.raises(RevisionNotFoundError):
            api.upload_file(path_or_fileobj=b"2", path_in_repo="a", repo_id="lab/model", revision="v1")


class TestDownloads:
    @pytest.mark.parametrize("name", ["config.json", "weights/a.bin"])
    def test_second_download_uses_the_cache(self, hub_client: LoopbackHub, repository: Repository, name: str) -> None:
        first = hf_hub_download("lab/model", name)
        assert Path(first).read_bytes() == repository.files()[name]
        assert Path(first).is_relative_to(hub_client.home)
        assert hub_client.downloads == [name]
        assert hf_hub_download("lab/model", name) == first
        assert hub_client.downloads == [name]

    def test_storage_is_another_origin_that_never_sees_the_token(
        self, hub_client: LoopbackHub, repository: Repository
    ) -> None:
        hf_hub_download("lab/model", "weights/a.bin", token=hub_client.token)
        shown = [
            str(request).replace(repository.resolve().files["weights/a.bin"].sha256, "SHA")
            for request in hub_client.requests
        ]
        address = "/lab/model/resolve/main/weights/a.bin"
        assert [line for line in shown if "agent" not in line] == [f"HEAD {address} 302", "GET /storage/SHA 200"]

    def test_revisions(self, hub_client: LoopbackHub, repository: Repository) -> None:
        first = repository.resolve().oid
        HfApi().create_tag("lab/model", tag="v1")
        repository.commit({"config.json": b"new"})
        for revision, content in (("v1", b"{}"), (first, b"{}"), ("main", b"new"), (repository.resolve().oid, b"new")):
            path = Path(hf_hub_download("lab/model", "config.json", revision=revision))
            assert path.read_bytes() == content
        assert hub_client.downloads == ["config.json", "config.json"]  # one for each content

    def test_errors_have_the_client_s_classes(self, hub_client: LoopbackHub, repository: Repository) -> None:
        with pytest.raises(EntryNotFoundError):
            hf_hub_download("lab/model", "none.json")
        with pytest.raises(RevisionNotFoundError):
            hf_hub_download("lab/model", "config.json", revision="v9")
        for name in ("lab/none", "none"):
            with pytest.raises(RepositoryNotFoundError):
                hf_hub_download(name, "config.json")
            with pytest.raises(RepositoryNotFoundError):
                HfApi().model_info(name)

    @pytest.mark.parametrize("name", ["config.json", "weights/a.bin"])
    def test_interrupted_download_goes_on_where_it_stopped(
        self, hub_client: LoopbackHub, repository: Repository, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repository.commit({"config.json": b"x" * len(BINARY)})
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # the client only resumes after whole chunks
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
        hub_client.interrupt_downloads(after=2500, times=2)
        assert Path(hf_hub_download("lab/model", name)).read_bytes() == repository.files()[name]
        sent = [(request.status, request.byte_range) for request in hub_client.requests if request.file]
        assert sent == [(200, None), (206, "bytes=2000-"), (206, "bytes=4000-")]

    def test_range_of_a_file(self, hub_client: LoopbackHub, repository: Repository) -> None:
        url = f"{hub_client.endpoint}/lab/model/resolve/main/weights/a.bin"
        session = huggingface_hub.get_session()
        part = session.get(url, headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, BINARY[10:20])
        assert part.headers["Content-Range"] == f"bytes 10-19/{len(BINARY)}"
        beyond = session.get(url, headers={"Range": f"bytes={len(BINARY)}-"})
        assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{len(BINARY)}")

    def test_snapshot_is_complete_and_then_offline(self, hub_client: LoopbackHub, repository: Repository) -> None:
        folder = Path(snapshot_download("lab/model"))
        found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert found == repository.files()
        hub_client.stop()
        assert snapshot_download("lab/model", local_files_only=True) == str(folder)
        with pytest.raises(LocalEntryNotFoundError):  # without the argument, the client tries again for 23 seconds
            hf_hub_download("lab/model", "other.json", local_files_only=True)

    def test_offline_attachment_asks_nothing(self, hub_client: LoopbackHub, repository: Repository) -> None:
        path = hf_hub_download("lab/model", "config.json")
        asked = len(hub_client.requests)
        with pytest.MonkeyPatch.context() as patch:
            hub_client.attach(patch, offline=True)
            assert hf_hub_download("lab/model", "config.json") == path
            with pytest.raises(LocalEntryNotFoundError):
                hf_hub_download("lab/model", "weights/a.bin")
        assert len(hub_client.requests) == asked

    def test_unknown_request_is_named(self, hub_client: LoopbackHub) -> None:
        with pytest.raises(HfHubHTTPError, match="does not know GET /api/papers/1"):
            HfApi().paper_info("1")

    def test_content_that_is_not_what_was_announced_is_refused(
        self, hub_client: LoopbackHub, repository: Repository
    ) -> None:
        session, sha = huggingface_hub.get_session(), "0" * 64
        assert session.put(f"{hub_client.storage_endpoint}/storage/{sha}", content=b"other").status_code == 400
        assert session.get(f"{hub_client.storage_endpoint}/storage/{sha}?path=a").status_code == 404
        large = {"key": "lfsFile", "value": {"path": "a", "algo": "sha256", "oid": sha, "size": 5}}
        lines = [{"key": "header", "value": {"summary": "Add"}}, large]
        answer = session.post(
            f"{hub_client.endpoint}/api/models/lab/model/commit/main",
            content="\n".join(json.dumps(line) for line in lines),
            headers={"Authorization": f"Bearer {hub_client.token}"},
        )
        assert (answer.status_code, answer.json()["error"]) == (
            400,
            "cannot commit a as lfsFile: unknown, or not uploaded before",
        )
        assert "a" not in repository.files()

    def test_body_of_unknown_length(self, hub_client: LoopbackHub) -> None:
        sha = hashlib.sha256(b"in two parts").hexdigest()
        url = f"{hub_client.storage_endpoint}/storage/{sha}"
        assert huggingface_hub.get_session().put(url, content=iter([b"in two ", b"parts"])).status_code == 200
        assert hub_client.large_file(sha) == b"in two parts"

    def test_no_other_host_can_be_reached(self, hub_client: LoopbackHub) -> None:
        with pytest.raises(Exception, match="Connection refused"):
            huggingface_hub.get_session().get("https://huggingface.co/api/whoami-v2")


class TestTransformers:
    def test_push_and_load(self, hub_client: LoopbackHub) -> None:
        model = tiny_bert()
        model.push_to_hub("lab/bert", commit_message="Tiny", private=True, tags=["person-retrieval"])
        repository = hub_client.repository("lab/bert")
        assert list(repository.files()) == [".gitattributes", "README.md", "config.json", "model.safetensors"]
        assert repository.resolve().files["model.safetensors"].large
        assert repository.private
        assert HfApi().model_info("lab/bert").tags == ["person-retrieval"]
        assert same_weights(BertModel.from_pretrained("lab/bert"), model)
        assert hub_client.downloads == ["config.json", "model.safetensors"]
        with pytest.raises(OSError, match="not a valid model identifier"):
            BertModel.from_pretrained("lab/bert", token=False, cache_dir=hub_client.home / "empty")

    def test_revision_is_pinned(self, hub_client: LoopbackHub) -> None:
        old, new = tiny_bert(1), tiny_bert(2)
        old.push_to_hub("lab/bert")
        first = hub_client.repository("lab/bert").resolve().oid
        HfApi().create_tag("lab/bert", tag="v1")
        new.push_to_hub("lab/bert")
        new.push_to_hub("lab/bert", revision="other")
        assert sorted(hub_client.repository("lab/bert").branches) == ["main", "other"]
        for revision, model in (("main", new), ("v1", old), (first, old), ("other", new)):
            assert same_weights(BertModel.from_pretrained("lab/bert", revision=revision), model)

    def test_missing_things_are_named(self, hub_client: LoopbackHub) -> None:
        tiny_bert().push_to_hub("lab/bert")
        with pytest.raises(OSError, match="lab/none is not a local folder and is not a valid model identifier"):
            BertModel.from_pretrained("lab/none")
        with pytest.raises(OSError, match="v9 is not a valid git identifier"):
            BertModel.from_pretrained("lab/bert", revision="v9")
        HfApi().delete_file("model.safetensors", repo_id="lab/bert")
        with pytest.raises(OSError, match=r"does not appear to have a file named .*model\.safetensors"):
            BertModel.from_pretrained("lab/bert")

    def test_cache_serves_a_stopped_hub(self, hub_client: LoopbackHub) -> None:
        model = tiny_bert()
        model.push_to_hub("lab/bert")
        BertModel.from_pretrained("lab/bert")
        hub_client.stop()
        asked = len(hub_client.requests)
        assert same_weights(BertModel.from_pretrained("lab/bert", local_files_only=True), model)
        assert len(hub_client.requests) == asked
        program = "from transformers import BertModel; print(BertModel.from_pretrained('lab/bert').num_parameters())"
        environment = hub_client.environment(offline=True)
        run = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
        )
        assert (run.returncode, run.stdout) == (0, f"{model.num_parameters()}\n"), run.stderr


class TestOtherProcesses:
    PROGRAM = """
import huggingface_hub
huggingface_hub.create_repo("lab/model", exist_ok=True)
huggingface_hub.upload_file(path_or_fileobj=bytes(5000), path_in_repo="a.bin", repo_id="lab/model")
print(huggingface_hub.hf_hub_download("lab/model", "a.bin"))
"""

    def test_environment_is_all_a_subprocess_needs(self, hub: LoopbackHub) -> None:
        command = [sys.executable, "-c", self.PROGRAM]
        run = subprocess.run(command, env=hub.environment(), capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        assert Path(run.stdout.strip()).is_relative_to(hub.home)
        assert hub.repository("lab/model").files()["a.bin"] == bytes(5000)
        assert hub.downloads == ["a.bin"]

    def test_without_a_token_it_may_not_write(self, hub: LoopbackHub) -> None:
        command = [sys.executable, "-c", self.PROGRAM]
        environment = hub.environment(token=None)
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 1
        assert "401" in run.stderr
        assert hub.repositories == {}

    def test_this_process_is_as_before_when_the_fixture_is_gone(self, hub: LoopbackHub) -> None:
        before = {name: getattr(constants, name) for name in dir(constants) if name.isupper()}
        with pytest.MonkeyPatch.context() as patch:
            hub.attach(patch)
            assert hub.endpoint == constants.ENDPOINT
        assert {name: getattr(constants, name) for name in dir(constants) if name.isupper()} == before
        assert HfApi().endpoint == huggingface_hub.hf_api.api.endpoint == before["ENDPOINT"]
