"""Files to score models on: a bad one stops the evaluation, or is left out and told."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.errors import DataError
from pretrain_cli.evaluation.texts import collect_texts
from tests.support.mixed import text


@pytest.mark.parametrize("sample", [0, 500])
def test_a_bad_file_or_record_among_good_ones_is_left_out_and_told(tmp_path: Path, sample: int) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "good.txt").write_text(text("good") * 20)
    (folder / "broken.docx").write_bytes(b"PK\x03\x04 not a zip")
    (folder / "photo.png").write_bytes(b"\x89PNG")
    (folder / "lines.jsonl").write_text('{"text": "a good record of words"}\nnot JSON\n{"text": null}\n')
    (folder / "late.txt").write_bytes(text("late").encode() * 12_000 + b"\xff\xfe and more")
    settings = {"evaluate": {"on": [str(folder)], "sample": sample}}
    with pytest.raises(DataError) as caught:
        collect_texts(Config.model_validate(settings), Artifacts(tmp_path))
    assert "broken.docx" in caught.value.message and "--on-error skip" in caught.value.hint
    (found,) = collect_texts(Config.model_validate({**settings, "data": {"on_error": "skip"}}), Artifacts(tmp_path))
    assert [
        name for name in ("broken.docx", "late.txt", "lines.jsonl") if any(name in told for told in found.lost)
    ] == [
        "broken.docx",
        "late.txt",
        "lines.jsonl",
    ]
    assert found.unread == "1 with another ending (png 1)"
    assert len(found.lost) == 3 and found.n_bytes > 400
