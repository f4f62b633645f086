"""The flat form is recognised by page headers, and everything else is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import CorruptFileError
from storage.flat import flat_groups

ROWS = np.arange(60 * 8, dtype=np.uint16).reshape(60, 8)


def write(path, *, nullable=False, **settings):
    field = pa.field("activation", pa.binary(16), nullable)
    values = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), 60, [None, pa.py_buffer(ROWS)])
    table = pa.table([values], schema=pa.schema([field]))
    plain = {"compression": "none", "use_dictionary": False, "data_page_size": 1 << 30}
    pq.write_table(table, path, row_group_size=25, **{**plain, **settings})


def test_the_values_lie_where_the_index_says(tmp_path):
    write(tmp_path / "f")
    body = (tmp_path / "f").read_bytes()
    groups = flat_groups(tmp_path / "f", "activation")
    assert [group.num_rows for group in groups] == [25, 25, 10]
    found = b"".join(body[g.offset : g.offset + 16 * g.num_rows] for g in groups)
    assert found == ROWS.tobytes()


@pytest.mark.parametrize(
    "settings",
    [
        {"nullable": True},
        {"compression": "zstd"},
        {"use_dictionary": True},
        {"data_page_size": 64, "write_batch_size": 4},
    ],
)
def test_a_file_that_is_not_flat_is_refused(tmp_path, settings):
    write(tmp_path / "f", **settings)
    with pytest.raises(CorruptFileError, match="flat"):
        flat_groups(tmp_path / "f", "activation")


def test_a_page_checksum_does_not_hide_the_place(tmp_path):
    write(tmp_path / "f", write_page_checksum=True)
    body = (tmp_path / "f").read_bytes()
    group = flat_groups(tmp_path / "f", "activation")[0]
    assert body[group.offset : group.offset + 16] == ROWS[0].tobytes()
