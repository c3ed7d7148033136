"""Many visitors at once: each gets a result or is told that the queue is full. Two minutes of it: benchmarks/demo_load.py."""

import asyncio
import json
from collections import Counter

from benchmarks.demo_load import Visitor, addresses, client_of, endpoints_of, faults, recorded, summary, table, visit
from benchmarks.pages import DEMO_PAGE, rewritten


def test_thirty_visitors_get_a_result_or_are_told_that_the_queue_is_full(served):
    records = asyncio.run(visit(served, clients=30, seconds=0, steps=1))
    assert len(records) == 30
    assert [record for record in records if record["outcome"] == "failed"] == []
    outcomes = Counter(record["outcome"] for record in records)
    assert outcomes["done"] >= 24  # as many as may wait
    messages = {record["message"] for record in records if record["outcome"] == "refused"}
    assert all(message.startswith("Queue is full.") for message in messages)


def test_an_answer_that_is_no_result_counts_as_failed(served):
    async def ask():
        async with client_of(served) as http:
            return await recorded(Visitor(http, await endpoints_of(http), seed=0, steps=10**6), "generate")

    record = asyncio.run(ask())
    assert record["outcome"] == "failed" and record["message"].startswith("RuntimeError")


def test_files_are_found_in_results():
    file = {"path": "/tmp/a.png", "url": "http://127.0.0.1:1/gradio_api/file=/tmp/a.png"}
    assert list(addresses([[{"image": file, "caption": None}], file, "text"])) == ["/gradio_api/file=/tmp/a.png"] * 2


def test_the_table_says_what_happened():
    outcomes = ["done"] * 3 + ["refused"]
    records = [
        {
            "kind": "edit",
            "seconds": float(index),
            "outcome": outcome,
            "message": "Queue is full." * (outcome != "done"),
        }
        for index, outcome in enumerate(outcomes)
    ]
    watched = {"answers": [0.1, 0.2, 0.4], "memory": [700.0, 800.0, 790.0]}
    result = json.loads(json.dumps(summary(records, watched)))
    assert result["outcomes"] == {"done": 3, "refused": 1} and result["messages"] == {"Queue is full.": 1}
    times = {"page": 5.0, "first_picture": 9.0, "later_picture": 2.0}
    settings = {"clients": 4, "seconds": 120.0, "steps": 20, "cores": 2}
    text = table({**result, "times": times, "settings": settings})
    assert "4 clients for 120 seconds, 2 CPU cores" in text
    assert "| requests done / refused because the queue is full / failed | 3 / 1 / 0 |" in text
    assert "| 700, 700, 800 MiB |" in text
    assert faults(result) == ["memory grew by 14% in the second half"]
    result["outcomes"]["failed"], result["memory_mib"]["peak_of_first_half"] = 2, 1600.0
    result["memory_mib"]["peak"] = 1601.0
    assert faults(result) == ["2 requests failed", "the server took 1601 MiB, more than 1536"]


def test_the_page_shows_the_figures_of_the_repository():
    """If this fails, run `python -m benchmarks.pages`."""
    page = DEMO_PAGE.read_text(encoding="utf-8")
    assert rewritten(page, DEMO_PAGE) == page
