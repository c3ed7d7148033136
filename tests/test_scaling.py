"""The table of one process beside several; the figures are taken by hand on an idle machine."""

from benchmarks.scaling import table


def test_the_table_names_what_was_compared():
    runs = [
        {"processes": 1, "threads": 2, "samples_per_second": 15.04, "peak_memory_mib": 1200.4},
        {"processes": 2, "threads": 1, "samples_per_second": 18.0, "peak_memory_mib": 2100.0},
    ]
    text = table({"runs": runs, "settings": {"cores": 2, "resolution": 64, "batch": 16, "steps": 100}})
    assert "2 CPU cores, stage `base` at 64 px, 16 samples a step, 100 steps:" in text
    assert text.endswith("| 1 x 2 | 15.0 | 1200 MiB |\n| 2 x 1 | 18.0 | 2100 MiB |")
