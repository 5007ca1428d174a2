from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from prototide.service import checkpoints
from prototide.service.checkpoints import Checkpoint, InvalidCheckpointError


def checkpoint(step: int = 7) -> Checkpoint:
    return Checkpoint(
        step=step,
        trained=step - 1,
        positions={"train": {0: 11, 10: 0}},
        arrays={
            "floats": np.arange(6, dtype=np.float32).reshape(2, 3),
            "halves": np.array([np.inf, -0.0], np.float16),
            "ints": np.array([2**62, -1]),
            "flags": np.array([True, False]),
            "none": np.zeros((0, 4)),
            "slice": np.arange(10)[::3],
        },
        model={"labels": [1, "1", '"sha256":"', "ä\n", 2**62]},
        fingerprint={"core.k_init": 3, "core.half_life": None},
        topic_ids={"train": "an-id"},
        model_id="a-model",
        journal=99,
    )


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    for name in ("step", "trained", "positions", "model", "fingerprint", "topic_ids", "model_id", "journal"):
        assert getattr(one, name) == getattr(other, name)
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        assert other.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(other.arrays[name], array)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = checkpoints.write(tmp_path / "new" / "folder", checkpoint(), "me")
    assert path.name == "00000000000000000007.safetensors"
    assert_same(checkpoints.read(path), checkpoint())
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_any_safetensors_reader_can_look_inside(tmp_path: Path) -> None:
    with safe_open(checkpoints.write(tmp_path, checkpoint(), "me"), framework="numpy") as opened:
        assert opened.get_tensor("floats").shape == (2, 3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return checkpoints.write(tmp_path_factory.mktemp("whole"), checkpoint(), "me").read_bytes()


def test_no_flipped_bit_is_ever_loaded(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "flipped"
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << position % 8)]) + whole[position + 1 :])
        with pytest.raises(InvalidCheckpointError):
            checkpoints.read(path)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_cut_or_lengthened_file_is_ever_loaded(whole: bytes, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "cut"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(InvalidCheckpointError):
        checkpoints.read(path)
    path.write_bytes(whole + data.draw(st.binary(min_size=1)))
    with pytest.raises(InvalidCheckpointError):
        checkpoints.read(path)


@given(content=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_foreign_bytes_are_never_loaded(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(InvalidCheckpointError):
        checkpoints.read(path)


def test_the_newest_whole_one_is_used_and_the_others_are_named(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoints.write(tmp_path, checkpoint(step), "me")
    broken = tmp_path / "00000000000000000003.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1])
    (tmp_path / "notes.txt").write_text("mine")
    found, skipped = checkpoints.newest(tmp_path)
    assert found is not None
    assert found.step == 2
    assert [path for path, _ in skipped] == [broken]


@pytest.mark.parametrize("folder", ["missing", "."])
def test_an_empty_or_missing_folder_has_none(tmp_path: Path, folder: str) -> None:
    assert checkpoints.newest(tmp_path / folder) == (None, [])


def test_nobody_elses_files_are_taken_for_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "before-x-00000000000000000001.safetensors").write_text("set aside")
    path = checkpoints.write(tmp_path, checkpoint(5), "me")
    assert checkpoints.paths(tmp_path) == [path]
    assert checkpoints.step_of(path.name) == 5


def test_what_an_earlier_process_left_half_written_goes(tmp_path: Path) -> None:
    mine, other = (
        tmp_path / ".00000000000000000001.host_80-5.partial",
        tmp_path / ".00000000000000000001.else-5.partial",
    )
    mine.touch()
    other.touch()
    checkpoints.remove_partial(tmp_path, "host:80")
    assert list(tmp_path.iterdir()) == [other]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.write(tmp_path, checkpoint(), "me")
    assert list(tmp_path.iterdir()) == []


def test_differences_name_the_setting_and_both_values() -> None:
    assert checkpoints.differences({"a": 1, "b": [1]}, {"a": 2, "b": [1], "c": None}) == [
        "a is 2, it was 1",
    ]


def test_a_thousand_flips_and_cuts_are_never_loaded(tmp_path: Path) -> None:
    path = checkpoints.write(tmp_path, checkpoint(), "me")
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for number in range(1000):
        if number % 2:
            spoilt = bytearray(whole)
            spoilt[random.integers(len(whole))] ^= 1 << random.integers(8)
        else:
            spoilt = bytearray(whole[: random.integers(len(whole))])
        path.write_bytes(spoilt)
        with pytest.raises(InvalidCheckpointError):
            checkpoints.read(path)
    path.write_bytes(whole)
    assert checkpoints.read(path).step == 7
