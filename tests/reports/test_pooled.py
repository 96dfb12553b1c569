"""Both intervals of a PGR side by side, where there are pooled ones."""

import pandas as pd

from src.reports.experiment import write_report
from src.reports.results import read_results
from src.reports.sections import POOLED
from tests.result_tables import write_results

SMALL = {"names": ["demo-L2", "demo-L4", "demo-L8"], "layers": [2, 4, 8], "steps": 5}


def test_pooled_intervals_stand_beside_the_others(tmp_path):
    folder = write_results(tmp_path / "demo", **SMALL)
    table = pd.read_csv(folder / "pgr.csv")
    table.assign(pgr_low=table.pgr - 0.01, pgr_high=table.pgr + 0.01).to_csv(
        folder / "pooled.csv", index=False)
    write_report(folder)
    page = (folder / "report.md").read_text()
    row = next(row for row in read_results(folder).totals.itertuples() if row.status == "ok")
    assert POOLED.split("(")[0] in page and "[pooled.csv](pooled.csv)" in page
    assert (f"{row.pgr:.2f} [{row.pgr - 0.01:.2f}, {row.pgr + 0.01:.2f}] | {row.pgr:.2f} "
            f"[{row.pgr_low:.2f}, {row.pgr_high:.2f}] | {row.seeds} |") in page


def test_a_report_of_one_seed_does_not_speak_of_them(tmp_path):
    folder = write_results(tmp_path / "demo", **SMALL, seeds=(0,))
    write_report(folder)
    assert "pooled" not in (folder / "report.md").read_text()
