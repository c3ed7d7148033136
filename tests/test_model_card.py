"""The model card and the figures of the README come from files alone, and what is missing is named."""

import json
import shlex

import pytest

from mg_diffusion.cli.parser import build_parser
from mg_diffusion.model_card import main
from mg_diffusion.model_card.card import (
    COMMANDS,
    TIMED,
    baselines,
    controls,
    model_card,
    model_index,
    other_data,
    speed_table,
)
from mg_diffusion.model_card.readme import credits, readme_tables, replace_numbers


def figure(mean):
    return {"mean": mean, "low": mean - 0.05, "high": mean + 0.05}


def shares(mean):
    row = dict.fromkeys(("color", "texture", "shape"), figure(mean))
    return {"pairwise": row, "top1": row, "leak": row, "mrr": row, "joint": figure(mean)}


def retrieval(mean):
    lines = {"copy_color": shares(0.5), "reinhard": shares(0.625), "unheard_of": shares(0.25)}
    row = dict.fromkeys(("color", "texture", "shape"), 0.03)
    chance = {"pairwise": row, "top1": row, "leak": row, "mrr": row, "joint": 0.0}
    return {"method": shares(mean), "reference_lines": lines, "chance": chance, "settings": {"candidates": 16}}


def leakage(mean):
    row = dict.fromkeys(("color", "texture", "shape"), figure(mean))
    matrix = dict.fromkeys(("color", "texture", "shape", "seed"), row)
    lines = {"oracle": {"by_everything": {"dominance": figure(0.9)}}}
    return {"method": {"by_everything": {"matrix": matrix, "dominance": figure(mean)}}, "reference_lines": lines}


BENCH = {
    "settings": {"model": "mg-bazaar (embedded)", "data": "pictures", "split": "val"},
    "retrieval_synthetic": retrieval(0.75),
    "retrieval_photographic": retrieval(0.875),
    "leakage_synthetic": leakage(0.375),
}
SPEED = {
    "ratio_to_stock_step": {"unheard_of": 0.125, "encode_256": 0.5, "step_conditioned": 1.204},
    "settings": {"cores": 4, "device": "cpu"},
}
TRAINING = {
    "parameters": 5_340_000,
    "resolution": 64,
    "learning_rate": 0.001,
    "output_dir": "/secret/place",
    "report_to": None,
}


@pytest.fixture
def folder(tmp_path):
    for name, content in (("bench", BENCH), ("speed", SPEED), ("training", TRAINING)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def data(tmp_path):
    rows = {
        "train": [
            {"author": "Žofie", "source_url": "https://example.org/b", "license": "CC BY 2.0"},
            {"author": "Žofie", "source_url": "https://example.org/b", "license": "CC BY 2.0"},
            {"author": None},
            {"file_name": "ours.png"},
        ],
        "val": [{"author": "Ada", "source_url": "https://example.org/a", "license": "CC BY 2.0"}],
    }
    for split, entries in rows.items():
        (tmp_path / "data" / split).mkdir(parents=True)
        lines = "\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
        (tmp_path / "data" / split / "metadata.jsonl").write_text(lines + "\n\n", encoding="utf-8")
    return tmp_path / "data"


def test_readme_tables_hold_both_tracks_and_the_leakage():
    text = readme_tables(BENCH)
    cell = "87.5 [82.5, 92.5]"
    assert f"| **mg-bazaar (embedded)** | {cell} | {cell} | {cell} | {cell} |" in text
    assert "nearest of 16" in text and "| copy the color reference |" in text and "| unheard_of |" in text
    assert "75.0 [70.0, 80.0]" in text and "| swap seed | 0.38 [0.33, 0.42]" in text
    assert "Diagonal minus the rest: 0.38 [0.33, 0.42] (the true answer: 0.90 [0.85, 0.95])." in text
    assert "rendered" not in readme_tables({name: BENCH[name] for name in ("settings", "retrieval_photographic")})


def test_model_index_is_valid_and_holds_the_means():
    import yaml

    (model,) = yaml.safe_load(model_index(BENCH))["model-index"]
    assert model["name"] == "mg-bazaar"
    rendered, photographs = model["results"]
    assert photographs["dataset"] == {"type": "photographic", "name": "pictures (val)"}
    assert [metric["value"] for metric in rendered["metrics"]] == [0.75] * 4 + [0.375]
    assert all(set(result) == {"task", "dataset", "metrics"} for result in model["results"])


def test_speed_table_lists_ratios_and_where_they_were_taken():
    table = speed_table(SPEED)
    assert table.splitlines()[2:] == [
        "| a step with all three references | 1.20 |",
        "| of 256 px | 0.50 |",
        "| unheard_of | 0.12 |",
    ]
    assert "4 CPU cores" in table
    assert "GPU" in speed_table({**SPEED, "settings": {"device": "cuda", "cores": 4}})


def test_speed_table_reads_what_the_benchmark_writes(repository):
    written = (repository / "benchmarks" / "speed.py").read_text(encoding="utf-8")
    assert all(f'"{key}": ' in written for key in ("ratio_to_stock_step", "settings", "cores", "device"))
    shipped = json.loads((repository / "hub_cards" / "mg-bazaar" / "speed.json").read_text(encoding="utf-8"))
    assert set(shipped["ratio_to_stock_step"]) == set(TIMED)


def test_card_has_front_matter_and_all_figures_but_no_places(folder):
    text = model_card(folder)
    front, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert front.startswith("library_name: diffusers\n") and "model-index: [" in front
    assert "{" not in body.replace('={"color"', "")
    for part in ("5.3 M parameters", "64 px", "87.5 [", "1.20", "| learning_rate | 0.001 |"):
        assert part in text, part
    assert "secret" not in text and "report_to" not in text


def test_other_methods_have_a_row_for_each_track_they_were_benched_on(folder):
    assert "Other methods" not in model_card(folder) and baselines(folder) == ""
    (folder / "baselines").mkdir()
    quality = {"samples": {"frechet": figure(0.625)}}
    for name, tracks in (("gatys", ("photographic",)), ("ip_adapter", ("photographic", "synthetic"))):
        found = {f"retrieval_{track}": retrieval(0.25) for track in tracks}
        result = {"settings": {"model": name}, "quality": quality, **found}
        (folder / "baselines" / f"{name}.json").write_text(json.dumps(result))
    photographs, rendered = baselines(folder).split("rendered pictures:")
    cell = "25.0 [20.0, 30.0]"
    assert f"| gatys | {cell} | {cell} | {cell} | {cell} | 0.625 [0.575, 0.675] |" in photographs
    assert "| ip_adapter |" in photographs and "| ip_adapter |" in rendered and "gatys |" not in rendered
    assert baselines(folder) in model_card(folder)


def test_further_controls_are_told_where_they_were_measured(folder):
    assert "Further controls" not in model_card(folder) and controls(folder) == ""
    shares = {name: figure(0.25) for name in ("color", "texture", "shape", "color_by_histogram")}
    response = {"distances": [0.5, 0.25], "rank_correlation": 1.0}
    measured = {
        "feature_guidance": {"neither": shares, "both": shares},
        "two_palettes": {"share": 0.96, "halves": 50},
        "strength_response": {"color": response},
        "context_color_distance": {"with": 5.0, "without": 9.5},
        "cost_over_plain_call": {"plain": 1.0, "two_regions": 1.06},
        "settings": {"count": 25},
    }
    (folder / "control_surface.json").write_text(json.dumps(measured))
    text = controls(folder)
    for part in ("| both | 25.0 [20.0, 30.0] |", "96.0 % of 50 halves", "color 1.00", "5.00 with", "two regions 1.06"):
        assert part in text, part
    assert text in model_card(folder)


def test_the_benchmark_writes_what_the_card_reads(repository):
    shipped = json.loads((repository / "hub_cards" / "mg-bazaar" / "control_surface.json").read_text(encoding="utf-8"))
    written = (repository / "benchmarks" / "control_surface.py").read_text(encoding="utf-8")
    assert all(f'"{key}": ' in written for key in shipped)


def test_other_pictures_have_their_own_tables(folder):
    assert "other pictures" not in model_card(folder) and other_data(folder) == ""
    (folder / "other_data").mkdir()
    result = {
        "settings": {"model": "mg-bazaar (embedded)", "data": "wallpapers", "pictures": 70},
        "retrieval_photographic": retrieval(0.25),
    }
    (folder / "other_data" / "a.json").write_text(json.dumps(result))
    assert "`wallpapers`: 70 pictures" in other_data(folder) and "25.0 [20.0, 30.0]" in other_data(folder)
    assert other_data(folder) in model_card(folder)


def test_the_shipped_card_is_what_its_files_say(repository):
    """Figures that a benchmark rewrites reach the card by one command, which works."""
    shipped = repository / "hub_cards" / "mg-bazaar"
    assert model_card(shipped) == (shipped / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["bench", "speed", "training"])
def test_a_missing_or_damaged_file_is_named(folder, name):
    path = folder / f"{name}.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=f"{name}.json is damaged"):
        model_card(folder)
    path.unlink()
    with pytest.raises(ValueError, match=f"{name}.json is missing"):
        model_card(folder)


def test_a_bare_training_configuration_is_refused(folder):
    (folder / "training.json").write_text('{"resolution": 64}')
    with pytest.raises(ValueError, match="lacks parameters"):
        model_card(folder)


def test_numbers_are_replaced_and_nothing_else():
    text = "before\n<!-- numbers -->\nold\n<!-- /numbers -->\nafter\n"
    once = replace_numbers(text, r"new \1")
    assert once == "before\n<!-- numbers -->\nnew \\1\n<!-- /numbers -->\nafter\n"
    assert replace_numbers(once, r"new \1") == once
    assert replace_numbers(text.replace("old\n", ""), "new") == text.replace("old", "new")
    with pytest.raises(ValueError, match="no <!-- numbers -->"):
        replace_numbers("before\n<!-- numbers -->\n", "new")


def test_credits_name_each_author_once(data):
    assert credits(data).splitlines()[2:] == [
        "- Ada: https://example.org/a (CC BY 2.0)",
        "- Žofie: https://example.org/b (CC BY 2.0)",
    ]


@pytest.mark.parametrize(
    "rows, message",
    [("", "no metadata.jsonl with authors"), ('{"author": "Ada"}', "has an author, but no 'source_url'")],
)
def test_credits_without_authors_or_sources_are_refused(tmp_path, rows, message):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "metadata.jsonl").write_text(rows)
    with pytest.raises(ValueError, match=message):
        credits(tmp_path)


def test_main_writes_card_credits_and_readme(folder, data, tmp_path):
    readme = tmp_path / "PROJECT.md"
    readme.write_text("<!-- numbers -->\n<!-- /numbers -->\n")
    main([str(folder), "--readme", str(readme), "--credits", str(data)])
    assert (folder / "README.md").read_text(encoding="utf-8") == model_card(folder)
    assert (folder / "CREDITS.md").read_text(encoding="utf-8") == credits(data)
    block = f"{readme_tables(BENCH)}\n\n{speed_table(SPEED)}"
    assert readme.read_text(encoding="utf-8") == f"<!-- numbers -->\n{block}\n<!-- /numbers -->\n"


def test_main_ends_with_the_reason(tmp_path):
    command = f"mg-diffusion bench --model {tmp_path} --data PICTURES -o {tmp_path}/bench.json"
    with pytest.raises(SystemExit, match=f"error: .*bench.json is missing, or no file. This writes it: {command}"):
        main([str(tmp_path)])


@pytest.mark.parametrize("name", COMMANDS)
def test_the_commands_that_write_measurements_are_commands(name, repository):
    program, *flags = shlex.split(COMMANDS[name].format("folder"))
    if program == "mg-diffusion":
        build_parser().parse_args(flags)
    else:
        assert (repository / flags[0]).is_file()


def test_a_readme_that_is_missing_stops_all(folder, tmp_path):
    with pytest.raises(SystemExit, match="error: There is no file at .*gone.md"):
        main([str(folder), "--readme", str(tmp_path / "gone.md")])
    assert not (folder / "README.md").exists()


def test_help_says_what_the_arguments_are(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(part in said for part in ("its README.md", "<!-- numbers -->", "CREDITS.md"))


def test_the_readme_has_a_block_for_the_numbers(repository):
    replace_numbers((repository / "README.md").read_text(encoding="utf-8"), "")
