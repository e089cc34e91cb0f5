"""Opens what `lesion store export` wrote into a folder with pandas and DuckDB, and compares the four files."""

import math
import sqlite3
import sys
from pathlib import Path

import duckdb
import pandas

folder = Path(sys.argv[1])
parquet = pandas.read_parquet(folder / "rows.parquet")
csv = pandas.read_csv(folder / "rows.csv", float_precision="round_trip", keep_default_na=True)
lines = pandas.read_json(folder / "rows.jsonl", lines=True, precise_float=True)
database = sqlite3.connect(folder / "copy.db")
copy = pandas.read_sql("SELECT key, plan, task, nll, tokens FROM rows", database)

numbers = ["loss", "delta", "nll", "entropy", "kl", "blocks"]
counts = ["example", "tokens", "top1", "rank", "non_finite"]
texts = ["plan", "task", "prompt", "answer", "model", "key"]
assert list(parquet.columns) == list(csv.columns) == list(lines.columns), parquet.columns
for name in numbers:
    for other in (csv, lines):
        for a, b in zip(parquet[name], other[name]):
            assert a == b or math.isclose(a, b, rel_tol=1e-15) or (math.isnan(a) and math.isnan(b)), (name, a, b)
for name in counts + texts:
    assert list(parquet[name]) == list(csv[name]) == list(lines[name]), name
assert list(parquet["correct"]) == list(csv["correct"]) == list(lines["correct"])
assert parquet["completion"].isna().all()

merged = parquet.merge(copy, on="key", suffixes=("", "_copy"))
assert len(merged) == len(parquet) == len(copy)
assert (merged["nll"] == merged["nll_copy"]).all() and (merged["plan"] == merged["plan_copy"]).all()

means = parquet.groupby("plan")["loss"].mean().sort_index()
for source in ("rows.parquet", "rows.csv", "rows.jsonl"):
    query = f"SELECT plan, avg(loss) AS loss, count(*) AS n FROM '{folder / source}' GROUP BY plan ORDER BY plan"
    found = duckdb.sql(query).df().set_index("plan")["loss"].sort_index()
    assert list(found.index) == list(means.index)
    assert all(math.isclose(a, b, rel_tol=1e-12) for a, b in zip(found, means)), source
print(f"{len(parquet)} rows, 4 files, pandas and DuckDB agree")
