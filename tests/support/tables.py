"""Makes tables of texts as Parquet and Arrow write them."""

from __future__ import annotations

import io
from collections.abc import Sequence


def table(kind: str, texts: Sequence[str]) -> bytes:
    """Columns ``id`` and ``text``, as a "parquet" or an "arrow" file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink, rows = io.BytesIO(), pa.table({"id": list(range(len(texts))), "text": list(texts)})
    if kind == "parquet":
        pq.write_table(rows, sink)
    else:
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
    return sink.getvalue()
