from __future__ import annotations

import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from prototide.core import FastKMeansClassifier
from prototide.service import checkpoints, restoring
from prototide.service.checkpoints import Checkpoint
from prototide.service.errors import PersonMustAct, RestartMayHelp
from prototide.service.restoring import check_available, restore
from prototide.service.settings import Settings, load
from prototide.service.stacking import stack
from prototide.service.stores import FolderStore
from prototide.service.topics import Topology
from prototide.service.wire import decode_batch, encode_batch

TOPOLOGY = Topology((0, 1), {"train": 2, "predictions": 1, "dead-letters": 1}, {"train": "id-1"}, {})
WATERMARKS = {0: (0, 100), 1: (50, 60)}


class Rejections:
    count = 0

    def checkpoint_rejected(self) -> None:
        self.count += 1


def settings(*overrides: str) -> Settings:
    return load(None, list(overrides), {})


def checkpoint(**more: Any) -> Checkpoint:
    model = FastKMeansClassifier(**settings().core.classifier_parameters())
    model.fit_batch(sparse.eye(4, format="csr", dtype=np.float32), ["a", "b", 1, "1"])
    arrays, metadata = model.state()
    made = Checkpoint(3, 3, {"train": {0: 10, 1: 55}}, arrays, metadata, settings().fingerprint(), {"train": "id-1"})
    return replace(made, **more)


def refused(made: Checkpoint, folder: Path, *overrides: str) -> str:
    checkpoints.write(folder, made, "me")
    with pytest.raises(PersonMustAct) as error:
        restore(settings(*overrides), FolderStore(folder), TOPOLOGY, WATERMARKS, Rejections())
    return str(error.value)


def test_without_a_checkpoint_a_new_model_starts_where_the_settings_say(tmp_path: Path) -> None:
    for start_from, expected in (("earliest", {0: 0, 1: 50}), ("latest", {0: 100, 1: 60})):
        start = restore(settings(f"start_from={start_from}"), FolderStore(tmp_path), TOPOLOGY, WATERMARKS, Rejections())
        assert (start.course.step, start.course.positions, start.saved) == (0, expected, None)
        assert isinstance(start.model, FastKMeansClassifier)


def test_a_checkpoint_goes_on_at_its_offsets_whatever_start_from_says(tmp_path: Path) -> None:
    checkpoints.write(tmp_path, checkpoint(), "me")
    start = restore(settings("start_from=latest"), FolderStore(tmp_path), TOPOLOGY, WATERMARKS, Rejections())
    assert (start.course.step, start.course.positions, start.saved) == (3, {0: 10, 1: 55}, {"train": {0: 10, 1: 55}})
    assert start.model.classes_.tolist() == [1, "1", "a", "b"]


def test_a_broken_checkpoint_is_counted_and_the_one_before_it_used(tmp_path: Path) -> None:
    checkpoints.write(tmp_path, checkpoint(), "me")
    broken = checkpoints.write(tmp_path, checkpoint(step=4), "me")
    broken.write_bytes(broken.read_bytes()[:-8])
    rejections = Rejections()
    assert restore(settings(), FolderStore(tmp_path), TOPOLOGY, WATERMARKS, rejections).course.step == 3
    assert rejections.count == 1


def test_other_settings_are_refused_with_both_values(tmp_path: Path) -> None:
    said = refused(checkpoint(), tmp_path, "core.k_init=5")
    assert "core.k_init is 5, it was 3" in said


def test_settings_that_do_not_change_the_model_may_change(tmp_path: Path) -> None:
    checkpoints.write(tmp_path, checkpoint(), "me")
    start = restore(settings("core.n_threads=1"), FolderStore(tmp_path), TOPOLOGY, WATERMARKS, Rejections())
    assert start.model.get_params()["n_threads"] == 1


def test_another_topics_checkpoint_is_refused(tmp_path: Path) -> None:
    assert "topics.train" in refused(checkpoint(positions={"other": {0: 1}}), tmp_path)


def test_a_recreated_topic_is_refused(tmp_path: Path) -> None:
    assert "re-created" in refused(checkpoint(topic_ids={"train": "id-0"}), tmp_path)


def test_a_device_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PersonMustAct, match="device"):
        restore(settings("core.device=cuda:99"), FolderStore(tmp_path), TOPOLOGY, WATERMARKS, Rejections())


def test_a_model_too_large_for_its_device_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(model: FastKMeansClassifier, device: str) -> FastKMeansClassifier:
        raise MemoryError(f"a model may need 90.00 GB on {device}")

    monkeypatch.setattr(FastKMeansClassifier, "to", too_large)
    with pytest.raises(PersonMustAct, match=r"core\.device is too small: a model may need 90\.00 GB on cuda"):
        restore(settings("core.device=cuda"), FolderStore(tmp_path), TOPOLOGY, WATERMARKS, Rejections())


def test_an_exactly_once_checkpoint_is_not_continued_at_least_once(tmp_path: Path) -> None:
    assert "delivery=exactly_once" in refused(checkpoint(model_id="m", journal=7), tmp_path)


def test_a_new_partition_starts_at_its_beginning(tmp_path: Path) -> None:
    checkpoints.write(tmp_path, checkpoint(positions={"train": {0: 10}}), "me")
    start = restore(settings(), FolderStore(tmp_path), TOPOLOGY, {0: (0, 100), 1: (0, 60)}, Rejections())
    assert start.course.positions == {0: 10, 1: 0}


@pytest.mark.parametrize(
    ("watermarks", "says"),
    [
        ({0: (6, 9), 1: (0, 9)}, "begins at offset 6, the model goes on at 5"),
        ({0: (0, 4), 1: (0, 9)}, "ends at offset 4, the model goes on at 5"),
        ({0: (0, 9)}, r"lost its partitions \[1\]"),
        ({0: (0, 9), 1: (0, 9), 2: (3, 9)}, "train/2 begins at offset 3"),
    ],
)
def test_records_that_are_gone_are_never_skipped_silently(watermarks: dict[int, tuple[int, int]], says: str) -> None:
    with pytest.raises(PersonMustAct, match=says):
        check_available("train", watermarks, {0: 5, 1: 5}, {0: 5, 1: 5})


def test_warming_up_asks_now_and_then_whether_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "WARM_UP_TURN_SECONDS", 0.01)
    ended = threading.Event()
    monkeypatch.setattr(restoring, "_learn_something", lambda _settings: ended.wait(20))
    asked = iter([False, False, True])
    with pytest.raises(RestartMayHelp, match="stopped while"):
        restoring.warm_up(settings(), lambda: next(asked))
    ended.set()


def test_what_fails_while_warming_up_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_settings: Settings) -> None:
        raise PersonMustAct("no such device", "name another")

    monkeypatch.setattr(restoring, "_learn_something", fail)
    with pytest.raises(PersonMustAct, match="no such device"):
        restoring.warm_up(settings(), lambda: False)


def test_no_new_model_starts_over_checkpoints_that_are_all_broken(tmp_path: Path) -> None:
    broken = checkpoints.write(tmp_path, checkpoint(), "me")
    broken.write_bytes(broken.read_bytes()[:-8])
    with pytest.raises(PersonMustAct, match=r"none of the 1 checkpoints in .* can be used"):
        restore(settings(f"checkpoint.uri={tmp_path}"), FolderStore(tmp_path), TOPOLOGY, WATERMARKS, Rejections())


def test_a_checkpoint_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        restore(settings(), FolderStore(tmp_path / "file"), TOPOLOGY, WATERMARKS, Rejections())


@pytest.mark.parametrize("overrides", [[], ["core.lambda_penalty=0"], ["core.soft=false"], ["core.k_init=1"]])
def test_warming_up_compiles_what_learning_needs(overrides: list[str]) -> None:
    restoring._learn_something(settings(*overrides))
    before = compiled()
    model = restoring.new_model(settings(*overrides))
    random = np.random.default_rng(1)
    for _ in range(5):
        X = sparse.random(600, 300, 0.05, "csr", np.float32, random)
        rows = stack([decode_batch(encode_batch(X, random.integers(50, size=600)))])
        model.learn(rows.X, rows.labels, top_k=3)
        model.learn(rows.X, None, top_k=3)
    model.learn(rows.X, rows.labels, np.full(600, 20.0), top_k=3)
    for _ in range(2):
        model.learn(rows.X, rows.labels, top_k=3)
    model.snapshot().state()
    assert compiled() == before


def compiled() -> dict[str, int]:
    """How many signatures each kernel has."""
    modules = [module for name, module in sys.modules.items() if name.startswith("prototide")]
    return {
        f"{module.__name__}.{name}": len(value.signatures)
        for module in modules
        for name, value in vars(module).items()
        if getattr(value, "signatures", None)
    }
