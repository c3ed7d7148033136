"""The card and the figures of the README come from files alone, and what is missing is named."""

import json

import pytest

from mg_diffusion.cards import card, control_table, credits, main, replace_numbers, speed_table


def figures(mean):
    share = {"mean": mean, "low": mean - 0.05, "high": mean + 0.05}
    return {"pairwise": dict.fromkeys(("color", "texture", "shape"), share), "joint": share}


CONTROL = {
    "method": figures(0.875),
    "reference_lines": {"copy_color": figures(0.5), "reinhard": figures(0.625), "unheard_of": figures(0.25)},
    "settings": {"candidates": 16},
}
SPEED = {
    "ratio_to_stock_step": {"step_conditioned": 1.204, "encode_256": 0.5},
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
    for name, content in (("control", CONTROL), ("speed", SPEED), ("training", TRAINING)):
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


def test_control_table_has_a_row_for_each_known_method_and_the_targets():
    lines = control_table(CONTROL).splitlines()
    assert "all three nearest of 16" in lines[0]
    cell = "87.5 % [82.5, 92.5]"
    assert lines[2] == f"| **mg-bazaar** | {cell} | {cell} | {cell} | {cell} |"
    assert [line.split(" | ")[0].strip("| ") for line in lines[3:6]] == [
        "copy the color reference",
        "Reinhard color transfer onto the shape reference",
        "target",
    ]
    assert "unheard_of" not in control_table(CONTROL)


def test_speed_table_lists_ratios_and_where_they_were_taken():
    table = speed_table(SPEED)
    assert "| step_conditioned | 1.20 |" in table and "| encode_256 | 0.50 |" in table and "4 CPU cores" in table
    assert "GPU" in speed_table({**SPEED, "settings": {"device": "cuda", "cores": 4}})


def test_speed_table_reads_what_the_benchmark_writes(repository):
    written = (repository / "benchmarks" / "speed.py").read_text(encoding="utf-8")
    assert all(f'"{key}": ' in written for key in ("ratio_to_stock_step", "settings", "cores", "device"))


def test_card_has_front_matter_and_all_figures_but_no_places(folder):
    text = card(folder)
    assert text.startswith("---\nlibrary_name: diffusers\n") and "{" not in text.replace('{"color"', "").replace(
        "={", ""
    )
    for part in ("5.3 M parameters", "64 px", "87.5 %", "1.20", "| learning_rate | 0.001 |"):
        assert part in text, part
    assert "secret" not in text and "report_to" not in text


@pytest.mark.parametrize("name", ["control", "speed", "training"])
def test_a_missing_or_damaged_file_is_named(folder, name):
    path = folder / f"{name}.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=f"{name}.json is damaged"):
        card(folder)
    path.unlink()
    with pytest.raises(ValueError, match=f"{name}.json is missing"):
        card(folder)


def test_a_bare_training_configuration_is_refused(folder):
    (folder / "training.json").write_text('{"resolution": 64}')
    with pytest.raises(ValueError, match="lacks parameters"):
        card(folder)


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
    assert (folder / "README.md").read_text(encoding="utf-8") == card(folder)
    assert (folder / "CREDITS.md").read_text(encoding="utf-8") == credits(data)
    block = f"{control_table(CONTROL)}\n\n{speed_table(SPEED)}"
    assert readme.read_text(encoding="utf-8") == f"<!-- numbers -->\n{block}\n<!-- /numbers -->\n"


def test_main_ends_with_the_reason(tmp_path):
    with pytest.raises(SystemExit, match="error: .*control.json is missing"):
        main([str(tmp_path)])


def test_the_readme_has_a_block_for_the_numbers(repository):
    replace_numbers((repository / "README.md").read_text(encoding="utf-8"), "")
