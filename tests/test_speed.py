"""The speed benchmark runs and writes its figures; how large they are is not tested."""

import json
import runpy

from tiny_repository import save_tiny_repository


def test_speed_writes_ratios(repository, tmp_path, capsys):
    model = save_tiny_repository(tmp_path / "tiny-bazaar")
    speed = runpy.run_path(str(repository / "benchmarks" / "speed.py"))
    output = tmp_path / "speed.json"
    assert speed["main"](["--model", str(model), "--repeats", "1", "-o", str(output)]) == 0
    result = json.loads(output.read_text())
    assert result["model"] == "tiny-bazaar" and str(tmp_path) not in output.read_text()
    assert {"step_conditioned", "condition_once", "encode_64", "encode_512"} <= set(result["ratio_to_stock_step"])
    times, stock = result["milliseconds"], result["milliseconds"]["step_stock"]
    assert result["conditioned_step_over_stock_step"] == times["step_conditioned"] / stock
    assert capsys.readouterr().out.endswith(f"{output}\n")


def test_speed_refuses_zero_repeats(repository, tmp_path, capsys):
    speed = runpy.run_path(str(repository / "benchmarks" / "speed.py"))
    assert speed["main"](["--repeats", "0", "-o", str(tmp_path / "speed.json")]) == 2
    assert capsys.readouterr().err.startswith("error: --repeats")
