"""Windows of a stream: what a process sees of it, how a run goes on in it, and what is skipped."""

import itertools
import json
import re
import shutil
import warnings

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from safetensors.torch import load_file
from torch.utils.data import BatchSampler, SequentialSampler

from mg_diffusion.training import __main__ as command
from mg_diffusion.training import adapter, base, streaming, text, vae
from mg_diffusion.training.arguments import parse_args
from mg_diffusion.training.pictures import Limits
from mg_diffusion.training.sources import Source
from mg_diffusion.training.streaming import StreamedSamples, Windows

from .test_adapter_stage import save_base
from .test_sources import samples, write_parquet, write_shard


SHARDS, ROWS = 4, 3  # 12 pictures
LIMITS = Limits(32)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(SHARDS):
        write_shard(folder / "train" / f"{shard}.tar", samples(range(shard * ROWS, (shard + 1) * ROWS)))
    return folder


def open_windows(folder, size=5, rank=0, world=1, notes=None, seed=0, **limits):
    split = Source(str(folder)).open("train", is_streamed=True)
    return Windows(split, Limits(32, **limits), size, seed, rank, world, notes)


def numbers(pictures):
    return [int(caption.removeprefix("number ")) for caption in pictures.captions]


def test_windows_follow_each_other_through_one_pass_after_another(shards):
    windows = open_windows(shards)
    seen = [numbers(windows[k]) for k in range(5)]
    assert [len(one) for one in seen] == [5] * 5
    order = list(itertools.chain(*seen))
    first, second = order[:12], order[12:24]
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second  # each pass takes the shards in another order
    assert first != numbers(open_windows(shards, 12, seed=1)[0])


@pytest.mark.parametrize("size, length", [(12, 12), (13, 12), (11, 11)])
def test_a_window_holds_no_more_than_one_pass(shards, size, length):
    windows = open_windows(shards, size)
    for k in range(3):
        found = numbers(windows[k])
        assert len(found) == length and (length == 11 or sorted(found) == list(range(12)))


@pytest.mark.parametrize("world", [2, 3, 4])
def test_processes_see_different_pictures_and_together_all_of_them(shards, world):
    """By shards where their number is a multiple of that of the processes, by rows otherwise."""
    for start in (0, 1):
        size = 12 // world
        seen = [numbers(open_windows(shards, size, rank, world)[start]) for rank in range(world)]
        assert sorted(itertools.chain(*seen)) == list(range(12)), start
        if world == 4:
            assert all(max(one) - min(one) == ROWS - 1 for one in seen)


@pytest.mark.parametrize("with_notes", [True, False])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_window_is_the_same_however_it_is_reached(shards, tmp_path, with_notes, world):
    notes = tmp_path if with_notes else None
    whole = open_windows(shards, 5, 0, world, notes)
    expected = [whole[k] for k in range(7)]
    for k in (6, 3, 0, 4):
        for other in (open_windows(shards, 5, 0, world, notes), whole):
            found = other[k]
            assert torch.equal(found.whole, expected[k].whole) and torch.equal(found.crop, expected[k].crop)
            assert found.captions == expected[k].captions


def count_rows(windows, monkeypatch):
    read = []
    row = windows.split.row
    monkeypatch.setattr(windows.split, "row", lambda *arguments: read.append(1) or row(*arguments))
    return read


def test_with_notes_what_lies_before_is_not_read_again(shards, tmp_path, monkeypatch):
    before = open_windows(shards, notes=tmp_path)
    expected = [numbers(before[k]) for k in range(6)]
    lines = (tmp_path / "stream-0.jsonl").read_text().splitlines()
    assert [json.loads(line)["window"] for line in lines] == list(range(6))
    after = open_windows(shards, notes=tmp_path)
    read = count_rows(after, monkeypatch)
    assert numbers(after[5]) == expected[5] and len(read) == 5
    for damaged in ("", '{"key": "', json.dumps({**json.loads(lines[5]), "key": "other", "pass": 9}) + "\n"):
        (tmp_path / "stream-0.jsonl").write_text("\n".join(lines[:3]) + "\n" + damaged)
        after = open_windows(shards, notes=tmp_path)
        read = count_rows(after, monkeypatch)
        assert numbers(after[5]) == expected[5] and len(read) == 20  # from window 2


@pytest.mark.parametrize("changed", ["size", "seed", "files"])
def test_notes_of_another_stream_are_not_believed(shards, tmp_path, changed):
    data = shutil.copytree(shards, tmp_path / "data")
    list(map(open_windows(data, notes=tmp_path).__getitem__, range(4)))
    options = {"size": 4} if changed == "size" else {"seed": 1} if changed == "seed" else {}
    if changed == "files":
        write_shard(data / "train" / "0.tar", samples(range(50, 57)))
    assert numbers(open_windows(data, notes=tmp_path, **options)[3]) == numbers(open_windows(data, **options)[3])


def test_a_data_set_is_streamed(tmp_path):
    write_parquet(tmp_path / "set", 7)
    split = Source(dataset_name=str(tmp_path / "set")).open("train", is_streamed=True)
    windows = Windows(split, LIMITS, 4, 0, folder=tmp_path)
    seen = [numbers(windows[k]) for k in range(4)]
    assert sorted(list(itertools.chain(*seen))[:7]) == list(range(7))
    assert numbers(Windows(split, LIMITS, 4, 0, folder=tmp_path)[3]) == seen[3]


def spoil(folder, *names):
    """The shards with pictures of these numbers spoilt."""
    for shard in range(SHARDS):
        members = samples(range(shard * ROWS, (shard + 1) * ROWS))
        members |= {f"{name:04d}.png": b"no picture" for name in names if f"{name:04d}.png" in members}
        write_shard(folder / "train" / f"{shard}.tar", members)
    return folder


def test_bad_files_are_skipped_and_reported_by_window(tmp_path, capsys):
    report = tmp_path / "skipped.jsonl"
    windows = open_windows(spoil(tmp_path, 1, 7), 6, max_skipped_share=0.4, report=report)
    seen = [numbers(windows[k]) for k in (0, 1)]
    assert sorted(itertools.chain(*seen)) == [n for n in range(12) if n not in (1, 7)]
    for _ in range(2):  # a resumed run reads a window again
        lines = [json.loads(line) for line in report.read_text().splitlines()]
        assert {line["name"]: line["reason"] for line in lines} == {
            "train/0.tar/0001.png": "not an image",
            "train/2.tar/0007.png": "not an image",
        }
        for line in lines:
            number = int(line["name"][-8:-4])
            assert all(number not in one for one in seen) and len(seen[line["window"]]) < 6
        windows[lines[0]["window"]]
    assert re.search("window . of split 'train' of .*: . pictures, . files skipped", capsys.readouterr().out)


def test_a_window_of_which_too_much_is_skipped_stops_the_run(tmp_path):
    windows = open_windows(spoil(tmp_path, *range(3)), 3)
    with pytest.raises(ValueError, match=r"3 files of window \d of split 'train' of .* share of 1.00"):
        for k in range(4):
            windows[k]
    with pytest.raises(ValueError, match=r"There is no picture in window \d of split"):
        windows = open_windows(tmp_path, 3, max_skipped_share=1)
        for k in range(4):
            windows[k]


def test_a_process_without_a_row_is_an_error(shards):
    with pytest.raises(ValueError, match="Process 12 of 13 gets no row of split 'train' of .*; use fewer processes"):
        open_windows(shards, 3, rank=12, world=13)[0]


def test_a_shard_that_cannot_be_read_on_is_named(shards, tmp_path):
    data = shutil.copytree(shards, tmp_path / "data")
    windows = open_windows(data)
    for path in (data / "train").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="split 'train' of .* cannot be read on after row 0: "):
        windows[0]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_each_process_draws_as_much_from_each_window_as_the_other(world):
    """Of the batches that accelerate deals out to it."""
    size, per_window, length = 2, 6, 6 * world * 2
    for rank in range(world):
        windows = {window: f"window {window}" for window in range(3)}
        made = []

        def make(pictures, made=made):
            made.append(pictures)
            return {index: (pictures, index) for index in range(length)}

        stream = StreamedSamples(windows, make, per_window, length, size, world)
        dealt = BatchSamplerShard(BatchSampler(SequentialSampler(stream), size, True), world, rank)
        drawn = [stream[index] for batch in dealt for index in batch]
        assert [pictures for pictures, _ in drawn] == ["window 0"] * per_window + ["window 1"] * per_window
        assert made == ["window 0", "window 1"] and len(stream) == length
        assert [index for _, index in drawn] == [index for batch in dealt for index in batch]


def test_memory_is_for_one_window_at_a_time(shards):
    held = []

    def make(pictures):
        held.append(stream.samples)
        return [pictures] * 99

    stream = StreamedSamples(open_windows(shards), make, 2, 8, 1, 1)
    for index in range(8):
        stream[index]
    assert held == [None] * 4


STREAM = {"streaming_window": 4, "samples_per_picture": 1, "max_train_steps": 4}  # a window in two steps


def flags_of(flags, stage, shards, output, tmp_path_factory, **changed):
    if stage == "adapter":
        changed["pretrained_model_name_or_path"] = save_base(tmp_path_factory.mktemp("bases") / "base")
    switches = ["--text_only"] if stage == "text" else []
    if stage == "text":
        changed |= {"num_crossings": None, "num_rendered": None}
    stage = "base" if stage == "text" else stage
    return [*flags(stage, output, train_data_dir=shards, **STREAM, **changed), "--streaming", *switches]


def weights(folder):
    (path,) = (path for path in folder.glob("*.safetensors"))
    return load_file(path)


# A run that stopped within a window, and one that stopped where a window ends.
@pytest.mark.parametrize("stage, steps", [("base", [1]), ("adapter", [1]), ("text", [1]), ("vae", [1, 2])])
def test_a_resumed_run_ends_with_the_same_weights_bit_for_bit(stage, steps, flags, shards, tmp_path, tmp_path_factory):
    run = {"base": base, "adapter": adapter, "text": text, "vae": vae}[stage].run
    arguments = flags_of(flags, stage, shards, tmp_path / "whole", tmp_path_factory, checkpointing_steps=1)
    arguments += ["--checkpoints_total_limit", "0"]
    run(parse_args(arguments))
    arguments[arguments.index(str(tmp_path / "whole"))] = str(tmp_path / "rest")
    for step in steps:
        shutil.rmtree(tmp_path / "rest", ignore_errors=True)
        shutil.copytree(tmp_path / "whole" / f"checkpoint-{step}", tmp_path / "rest" / f"checkpoint-{step}")
        run(parse_args([*arguments, "--resume_from_checkpoint", "latest"]))
        one, other = (weights(tmp_path / name / "checkpoint-4") for name in ("whole", "rest"))
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    notes = [json.loads(line) for line in (tmp_path / "whole" / "stream-0.jsonl").read_text().splitlines()]
    assert [note["window"] for note in notes] == [0, 1]


def test_streamed_windows_are_what_the_run_is_trained_on(flags, shards, tmp_path, monkeypatch):
    read = []
    get = Windows.__getitem__
    monkeypatch.setattr(
        Windows, "__getitem__", lambda self, k: read.append((k, numbers(found := get(self, k)))) or found
    )
    data = shutil.copytree(shards, tmp_path / "data")
    write_shard(data / "val" / "0.tar", samples(range(90, 93)))
    command.main([*flags("vae", tmp_path, train_data_dir=data, **STREAM), "--streaming"])
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert any("val_loss" in record for record in records)  # of the held-out pictures
    assert [k for k, _ in read] == [0, 1] and len({n for _, one in read for n in one}) == 8
    assert streaming.REPORT not in {path.name for path in tmp_path.iterdir()}


def test_a_resumed_run_warns_of_another_stream(flags, shards, tmp_path):
    """As one of another folder, as long as its first pictures differ."""
    options = {**STREAM, "max_train_steps": 1, "checkpointing_steps": 1}
    command.main([*flags("vae", tmp_path / "run", train_data_dir=shards, **options), "--streaming"])
    other = shutil.copytree(shards, tmp_path / "other")
    again = flags("vae", tmp_path / "run", train_data_dir=other, **options, resume_from_checkpoint="latest")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The training data are not those")
        command.main([*again, "--streaming"])
    write_shard(other / "train" / "0.tar", samples(range(50, 53)))
    with pytest.warns(UserWarning, match="training data are not those of the checkpoint"):
        command.main([*again, "--streaming"])
