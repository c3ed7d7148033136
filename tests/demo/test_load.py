"""Many visitors at once: each gets a result or is told that the queue is full. Two minutes of it: benchmarks/demo_load.py."""

import json
import threading
import time
from collections import Counter

from benchmarks.demo_load import Visitor, draw_files, faults, summary, table, visit
from benchmarks.pages import DEMO_PAGE, rewritten


def test_forty_visitors_get_a_result_or_are_told_that_the_queue_is_full(served, studio):
    records = []
    with studio.lock:  # nothing is made until the queue is full
        visits = threading.Thread(target=visit, args=(served, 40, 0, 1, 64, records))
        visits.start()
        until = time.monotonic() + 120
        while not any(record["outcome"] != "done" for record in records) and time.monotonic() < until:
            time.sleep(0.1)
    visits.join()
    outcomes = Counter(record["outcome"] for record in records)
    assert [record for record in records if record["outcome"] == "failed"] == []
    assert set(outcomes) == {"done", "refused"} and outcomes["done"] >= 24 and len(records) == 40  # 24 may wait
    assert {record["message"] for record in records if record["outcome"] == "refused"} == {
        "Queue is full! Please try again."
    }


def test_an_answer_that_is_no_result_counts_as_failed(served, tmp_path):
    record = Visitor(served, tmp_path, draw_files(tmp_path), seed=0, steps=10**6).record("generate")
    assert record["outcome"] == "failed" and "number of steps must be a number from 1 to 50" in record["message"]


def test_the_table_says_what_happened():
    outcomes = ["done"] * 3 + ["refused"]
    records = [
        {"kind": "edit", "seconds": float(index), "outcome": outcome, "message": "Full." * (outcome != "done")}
        for index, outcome in enumerate(outcomes)
    ]
    result = {
        **json.loads(json.dumps(summary(records, [0.1, 0.2, 0.4], 0))),
        "times": {"page": 5.0, "first_picture": 9.0, "later_picture": 2.0},
        "settings": {"clients": 4, "seconds": 120.0, "steps": 20, "cores": 2},
        "peak_memory_mib": {"start": 700.0, "first_half": 750.0, "all": 800.0},
    }
    assert result["outcomes"] == {"done": 3, "refused": 1} and result["messages"] == {"Full.": 1}
    text = table(result)
    assert "4 clients for 120 seconds, 2 CPU cores" in text
    assert "| requests done / refused because the queue is full / failed | 3 / 1 / 0 |" in text
    assert "| 700 / 750 / 800 MiB |" in text and faults(result) == []


def test_faults_under_load_are_named():
    result = {
        "outcomes": {"failed": 2},
        "page": {"unanswered": 1},
        "peak_memory_mib": {"first_half": 1200.0, "all": 1601.0},
    }
    assert faults(result) == [
        "2 requests failed",
        "the page did not answer 1 times",
        "the server took 1601 MiB, more than 1536",
        "memory grew by 33% in the second half",
    ]


def test_the_page_shows_the_figures_of_the_repository():
    """If this fails, run `python -m benchmarks.pages`."""
    page = DEMO_PAGE.read_text(encoding="utf-8")
    assert rewritten(page, DEMO_PAGE) == page
