"""What a run's small files say is data that anybody may have edited: other values end in an error that names them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pretrain_cli.data.rows.reader import data_files, open_rows
from pretrain_cli.errors import DataError, ModelError
from pretrain_cli.published import checkpoint_files, recorded_files
from pretrain_cli.training.keeping.state import RunState, load_state

EVIL: list[Any] = [None, -1, 1e999, "x", [], {}, [["../x"]], {"a": {"b": []}}, "9" * 5000, "\ud800", "\x1b[2J"]
TRAINERS = {"epoch": 1.0, "global_step": 3, "max_steps": 3, "log_history": [], "train_batch_size": 8}


def state_in(folder: Path, own: dict[str, Any], trainers: dict[str, Any]) -> Path:
    (folder / "ptk.json").write_text(json.dumps(own))
    (folder / "trainer_state.json").write_text(json.dumps(trainers))
    return folder


@pytest.mark.parametrize("value", EVIL)
def test_a_state_of_other_kinds_is_refused_or_read_as_what_it_should_be(tmp_path: Path, value: object) -> None:
    good = asdict(RunState(step=3, began_s=1.0, recent_losses=[1.0], settings={"rows": 3}))
    for name in good:
        try:
            state = load_state(state_in(tmp_path, good | {name: value}, TRAINERS))
        except DataError as error:
            assert f"ptk.json is damaged at {name}" in error.message
            continue
        json.dumps(asdict(state), allow_nan=False)
        kinds = {type(each) for each in asdict(state).values()}
        assert kinds <= {int, float, bool, type(None), list, dict}
    for name in TRAINERS:
        try:
            load_state(state_in(tmp_path, good, TRAINERS | {name: value}))
        except DataError as error:
            assert f"trainer_state.json is damaged at {name}" in error.message


def test_a_state_that_has_more_than_ptk_writes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="damaged at stateful_callback_x"):
        load_state(state_in(tmp_path, asdict(RunState()), TRAINERS | {"stateful_callback_x": 1}))


@pytest.mark.parametrize("entry", [[], [1], [1, "a", 2], ["x", "y"], {}, None, 5, "text", {"size": 1}])
def test_a_list_of_files_of_another_kind_is_a_damaged_list(tmp_path: Path, entry: object) -> None:
    folder = tmp_path / "step-000003"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"step": 3, "files": {"config.json": entry}}))
    with pytest.raises(ModelError, match="is damaged"):
        recorded_files(folder)
    assert checkpoint_files(folder) == {"manifest.json"}


@pytest.mark.parametrize(
    "files",
    [
        *([], {}, "x", None, [1], ["x"], [[]], [{}], [{"filename": 5}], [{"filename": []}], [{"filename": "a.txt"}]),
        *([{"filename": "../data-00000-of-00001.arrow"}], [{"filename": "/dev/zero"}]),
        [{"filename": "data-00000-of-00001.arrow", "rows": -1}],
    ],
)
def test_rows_are_in_files_of_their_folder_only(tmp_path: Path, files: object) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": files}))
    with pytest.raises(DataError, match="is damaged at _data_files"):
        data_files(tmp_path)


def test_rows_that_are_no_rows_are_refused(tmp_path: Path) -> None:
    name = tmp_path / "data-00000-of-00001.arrow"
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": name.name, "rows": 1}]}))
    for table in (pa.table({"text": ["a"]}), pa.table({"input_ids": ["a"]})):
        with pa.ipc.new_stream(str(name), table.schema) as writer:
            writer.write_table(table)
        with pytest.raises(DataError, match="doesn't hold packed rows"):
            open_rows(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_among_the_rows_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    os.mkfifo(tmp_path / "data-00000-of-00001.arrow")
    with pytest.raises(DataError, match="is not a file"):
        open_rows(tmp_path)
