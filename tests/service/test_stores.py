"""Checkpoints in a folder and in an S3 bucket behave the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from s3fs import S3FileSystem
from typer.testing import CliRunner

from prototide.service import checkpoints, stores
from prototide.service.checkpoints import Checkpoint, InvalidCheckpointError
from prototide.service.cli import app
from prototide.service.errors import PersonMustAct, RestartMayHelp
from prototide.service.stores import FolderStore, ObjectStore, Store, reachable, store_of


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step, step, {"train": {0: step}}, {"a": np.arange(step)}, {"m": 1}, {}, {}, "a-model", step + 5)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Address of a local S3."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "folder":
        return store_of(str(tmp_path / "kept"))
    address: str = request.getfixturevalue("s3")
    for name, value in bucket_environment(address).items():
        monkeypatch.setenv(name, value)
    made = store_of(f"s3://bucket/{tmp_path.name}/")
    assert isinstance(made, ObjectStore)
    made._files.mkdirs("bucket", exist_ok=True)
    return made


def bucket_environment(address: str) -> dict[str, str]:
    """What a person sets for a service whose S3 is not Amazon's."""
    return {
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
    }


def test_nothing_is_there_at_first(store: Store) -> None:
    assert store.names() == []


def test_what_was_written_is_read(store: Store) -> None:
    size = store.write(checkpoint(3), "me")
    (name,) = store.names()
    found = store.read(name)
    assert (found.step, found.journal, found.model_id) == (3, 8, "a-model")
    np.testing.assert_array_equal(found.arrays["a"], [0, 1, 2])
    assert store.size(name) == size


def test_the_newest_come_first_and_the_oldest_go(store: Store) -> None:
    for step in (2, 10, 1, 9):
        store.write(checkpoint(step), "me")
    assert [checkpoints.step_of(name) for name in store.names()] == [10, 9, 2, 1]
    stores.prune(store, 2, 9)  # 10 is broken, or it would have been the one to go on from: no room is spent on it
    assert [checkpoints.step_of(name) for name in store.names()] == [10, 9, 2]


def test_old_ones_are_set_aside_under_another_name(store: Store) -> None:
    store.write(checkpoint(2), "me")
    (new,) = stores.set_aside(store, "before-x")
    assert store.names() == []
    assert new.startswith("before-x-0000")
    assert store.read(new).step == 2


def test_one_that_is_gone_is_invalid(store: Store) -> None:
    with pytest.raises(InvalidCheckpointError):
        store.read(f"{5:020d}.safetensors")
    store.remove(f"{5:020d}.safetensors")


def test_a_store_that_does_not_answer_is_worth_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in bucket_environment("http://127.0.0.1:1").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(RestartMayHelp, match="cannot be read"), reachable("s3://user:pass@nothing/there"):
        store_of("s3://nothing/there").names()


@pytest.mark.parametrize(("uri", "says"), [("ftp://x/y", "no such store"), ("az://x/y", r"prototide\[az\]")])
def test_a_url_that_cannot_be_used_is_refused(uri: str, says: str) -> None:
    with pytest.raises(PersonMustAct, match=says):
        store_of(uri)


def test_plain_paths_and_file_urls_are_folders() -> None:
    for uri in ("/there", "file:///there"):
        store: Any = store_of(uri)
        assert isinstance(store, FolderStore)
        assert store.folder == Path("/there")


def test_the_command_prunes_to_the_newest_whole_ones_and_refuses_when_there_is_none(tmp_path: Path) -> None:
    store = stores.FolderStore(tmp_path)
    for step in (10, 20, 30):
        store.write(checkpoint(step), "me")
    names = store.names()
    (tmp_path / names[0]).write_bytes(b"broken")
    command = ["checkpoints", "prune", "--keep", "1", "--set", f"checkpoint.uri={tmp_path}"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert [checkpoints.step_of(name) for name in store.names()] == [30, 20]
    (tmp_path / names[1]).write_bytes(b"broken")
    assert CliRunner().invoke(app, command).exit_code == 78
    assert len(store.names()) == 2
