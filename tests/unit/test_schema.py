"""What the declared tables promise, and what they refuse."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pytest

from conf.errors import UserError
from storage import columns, schema
from storage.errors import NewerSchemaError, SchemaError
from storage.manifest import Run

VETTED = {
    "trait": "anxiety",
    "polarity": "positive",
    "scenario": 3,
    "sample": 0,
    "score": None,
    "reason": "the endpoint timed out",
    "passed": False,
    "judge": "lexicon",
    "judge_version": "1",
}


def test_every_table_that_a_run_can_fill_is_declared():
    assert sorted(schema.TABLES) == [
        "activations",
        "attempts",
        "calibration",
        "evaluation",
        "judgements",
        "model_differences",
        "pooled",
        "projections",
        "responses",
        "runs",
        "steering",
        "steering_summary",
        "vectors",
        "vetting",
    ]


@pytest.mark.parametrize("name", sorted(schema.TABLES))
def test_every_column_of_every_table_says_what_it_means(name):
    for field in schema.TABLES[name]:
        facts = {key.decode(): value.decode() for key, value in field.metadata.items()}
        assert facts["meaning"]
        assert field.nullable == bool(facts["null_when"])
        assert "unit" in facts


@pytest.mark.parametrize("name", sorted(schema.TABLES))
def test_every_table_carries_its_name_version_and_partition_columns(name):
    declared = schema.TABLES[name]
    version = b"2" if name == "steering_summary" else b"1"
    assert declared.metadata == {b"schema": name.encode(), b"schema_version": version}
    assert declared.names[:2] == ["task_id", "model"]
    assert len(set(declared.names)) == len(declared.names)


def test_times_and_costs_live_in_runs_and_attempts_only():
    timed = {
        name
        for name, declared in schema.TABLES.items()
        if any(pa.types.is_temporal(field.type) or "cost" in field.name for field in declared)
    }
    assert timed == {"runs", "attempts"}


def test_a_committed_table_has_the_declared_order_and_types():
    rows = schema.from_rows("vetting", [VETTED]).select(sorted(VETTED))

    got = schema.conform("vetting", rows, task_id="t1", model="toy")

    assert got.schema.equals(schema.TABLES["vetting"], check_metadata=True)
    assert got.to_pylist() == [{"task_id": "t1", "model": "toy", **VETTED}]


def test_integers_of_another_width_are_brought_to_the_declared_one():
    rows = schema.from_rows("vetting", [VETTED])
    wide = rows.set_column(rows.column_names.index("sample"), "sample", pa.array([7], pa.int64()))
    assert schema.conform("vetting", wide, task_id="t", model="m")["sample"].type == pa.int16()


def test_a_value_that_does_not_fit_its_column_is_refused():
    rows = schema.from_rows("vetting", [VETTED])
    wide = rows.set_column(
        rows.column_names.index("sample"), "sample", pa.array([70_000], pa.int64())
    )
    with pytest.raises(SchemaError, match="70000"):
        schema.conform("vetting", wide, task_id="t", model="m")


def test_unknown_columns_are_named():
    with pytest.raises(SchemaError, match=r"unknown columns \['scoer'\]"):
        schema.from_rows("vetting", [{**VETTED, "scoer": 1.0}])


def test_missing_columns_are_named():
    rows = schema.from_rows("vetting", [VETTED]).drop_columns(["judge"])
    with pytest.raises(SchemaError, match=r"missing columns \['judge'\]"):
        schema.conform("vetting", rows, task_id="t", model="m")


def test_a_required_column_takes_no_null():
    with pytest.raises(SchemaError, match="passed has 1 nulls"):
        schema.from_rows("vetting", [{**VETTED, "passed": None}])


def test_rows_of_another_task_are_refused():
    rows = schema.from_rows("vetting", [{**VETTED, "task_id": "t2"}])
    with pytest.raises(SchemaError, match="commit is for 't1'"):
        schema.conform("vetting", rows, task_id="t1", model="m")


def test_an_unknown_table_lists_the_known_ones():
    with pytest.raises(SchemaError, match="steering_summary"):
        schema.schema_of("steerings")


def test_an_empty_table_conforms():
    empty = schema.from_rows("vetting", [])
    assert schema.conform("vetting", empty, task_id="t", model="m").num_rows == 0


def test_a_newer_file_is_refused_with_the_way_out():
    newer = schema.TABLES["vetting"].with_metadata({"schema": "vetting", "schema_version": "2"})
    with pytest.raises(NewerSchemaError, match="upgrade traitmill") as caught:
        schema.check_version("vetting", newer, path="x.parquet")
    assert isinstance(caught.value, UserError)


def test_a_file_of_another_table_is_refused():
    with pytest.raises(SchemaError, match="holds table 'vetting'"):
        schema.check_version("responses", schema.TABLES["vetting"], path="x.parquet")


def test_an_older_table_is_migrated_step_by_step(monkeypatch):
    def rename(table: pa.Table) -> pa.Table:
        return table.rename_columns({"marks": "score"})

    monkeypatch.setitem(schema.MIGRATIONS, ("vetting", 0), rename)
    old = pa.table({"marks": [1.0]}).replace_schema_metadata({"schema": "vetting"})
    assert schema.migrate("vetting", old).column_names == ["score"]


def test_a_summary_without_units_is_read_with_nulls_in_their_place():
    declared = schema.TABLES["steering_summary"]
    units = ["coefficient_unit", "applied_coefficient"]
    kept = [field for field in declared if field.name not in units]
    facts = {"schema": "steering_summary", "schema_version": "1"}
    row = {field.name: None for field in kept}
    old = pa.Table.from_pylist(
        [row], schema=pa.schema([f.with_nullable(True) for f in kept], facts)
    )

    new = schema.migrate("steering_summary", old)

    assert set(new.column_names) == set(declared.names)
    assert [new.column(name).to_pylist() for name in units] == [[None], [None]]


def test_an_older_table_without_a_migration_is_refused():
    old = pa.table({"marks": [1.0]}).replace_schema_metadata({"schema": "vetting"})
    with pytest.raises(SchemaError, match="no migration from version 0"):
        schema.migrate("vetting", old)


def test_a_run_of_an_older_version_is_read_and_continued_by_a_newer_one(tmp_path, monkeypatch):
    """Version 1 is on the disk; then version 2 renames a column and adds one."""
    with Run.open(tmp_path / "run") as run:
        for task, scenario in (("t1", 3), ("t2", 4)):
            rows = schema.from_rows("vetting", [{**VETTED, "scenario": scenario}])
            run.commit(task, {"vetting": rows}, model="toy", provenance={})
    first = schema.TABLES["vetting"]
    place = first.get_field_index("judge")
    certainty = columns.column("certainty", columns.FLOAT64, "of the judge", null_when="not asked")
    second = (
        first.set(place, columns.column("judged_by", columns.STRING, "which judge scored"))
        .append(certainty)
        .with_metadata({"schema": "vetting", "schema_version": "2"})
    )

    def forward(table: pa.Table) -> pa.Table:
        names = ["judged_by" if name == "judge" else name for name in table.column_names]
        nothing = pa.nulls(table.num_rows, pa.float64())
        return table.rename_columns(names).append_column(certainty, nothing)

    monkeypatch.setitem(schema.TABLES, "vetting", second)
    monkeypatch.setitem(schema.MIGRATIONS, ("vetting", 1), forward)
    newer = {k: v for k, v in VETTED.items() if k != "judge"}
    newer |= {"judged_by": "endpoint", "certainty": 0.5, "scenario": 5}
    with Run.open(tmp_path / "run") as run:
        assert run.verify().is_whole
        rows = schema.from_rows("vetting", [newer])
        run.commit("t3", {"vetting": rows}, model="toy", provenance={})
        got = run.read("vetting", ["scenario", "judged_by", "certainty"])
        assert got.to_pylist() == [
            {"scenario": 3, "judged_by": "lexicon", "certainty": None},
            {"scenario": 4, "judged_by": "lexicon", "certainty": None},
            {"scenario": 5, "judged_by": "endpoint", "certainty": 0.5},
        ]
        picked = run.read("vetting", ["scenario"], filters=[("judged_by", "==", "lexicon")])
        assert picked["scenario"].to_pylist() == [3, 4]

    monkeypatch.setitem(schema.TABLES, "vetting", first)
    with Run.open(tmp_path / "run") as run:
        with pytest.raises(NewerSchemaError, match="version 2"):
            run.read("vetting")
        assert "version 2" in run.verify().summary()


@pytest.mark.parametrize(("dtype", "width"), [("bfloat16", 14_336), ("float32", 28_672)])
def test_activation_rows_are_fixed_size_and_required(dtype, width):
    field = schema.activation_schema(7168, dtype).field("activation")
    assert field.type == pa.binary(width)
    assert not field.nullable
    assert field.metadata[b"dtype"] == dtype.encode()
    assert field.metadata[b"shape"] == b"[7168]"
    assert field.metadata[b"byteorder"] == b"little"


def test_an_unknown_activation_dtype_is_refused():
    with pytest.raises(SchemaError, match="int8"):
        schema.activation_schema(8, "int8")


@pytest.mark.parametrize(
    "error", [SchemaError("vetting", "no"), NewerSchemaError("table vetting", "x", 2, 1)]
)
def test_errors_keep_type_and_fields_across_processes(error):
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert back.fields == error.fields
    assert str(back) == str(error)
