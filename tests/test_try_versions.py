"""The oldest and newest versions that are tried: what is read and checked of them, without installing any."""

import numpy as np
import PIL.Image
import pytest
from packaging.requirements import Requirement

from mg_diffusion.cli.parser import build_parser
from tools import try_versions


LISTED = "thing (2.1)\nAvailable versions: 2.1, 2.0.1+cpu, 2.0.0, 1.9, 1.0\n  INSTALLED: 2.1\n"


def test_every_dependency_says_which_is_the_oldest():
    needed = try_versions.dependencies()
    assert {"torch", "diffusers", "transformers"} <= {one.name for one in needed}
    assert all(try_versions.lower_bound(one) in one.specifier for one in needed)
    with pytest.raises(ValueError, match="must say which numpy is the oldest"):
        try_versions.lower_bound(Requirement("numpy<3"))


def test_the_oldest_is_the_lowest_that_is_claimed_and_there():
    for asked, oldest in (
        ("thing>=1.5", "1.9"),
        ("thing>=2", "2.0.0"),
        ("thing>2.0", "2.0.1"),
        ("thing>=2,!=2.0", "2.0.1"),
    ):
        assert try_versions.lowest(Requirement(asked), LISTED) == oldest
    for listed in (LISTED, "", "ERROR: No matching distribution"):
        with pytest.raises(ValueError, match="must have a wheel of `thing>=3`"):
            try_versions.lowest(Requirement("thing>=3"), listed)


def test_versions_are_told_with_the_bound_where_another_was_tried():
    found = {"torch": "2.13.0+cpu", "diffusers": "0.42.0", "numpy": "1.26.4"}
    said = try_versions.describe(found, {"torch": "2.6", "diffusers": "0.42"})
    assert said == "torch 2.13.0+cpu (claimed: 2.6), diffusers 0.42.0, numpy 1.26.4"


def test_references_are_drawn_for_the_command(tmp_path):
    options = try_versions.draw_references(tmp_path)
    given = build_parser().parse_args(["generate", *options, "-o", str(tmp_path / "out.png")])
    assert given.texture and given.shape and given.color
    assert {path.name for path in tmp_path.iterdir()} == {"stripes.png", "ring.png"}


def test_only_a_painted_picture_is_one(tmp_path):
    path, side = tmp_path / "out.png", try_versions.SIZE
    with pytest.raises(ValueError, match="cannot be read"):
        try_versions.read_picture(path)
    for wrong in (PIL.Image.new("RGB", (side, side), "red"), PIL.Image.effect_noise((64, 64), 60)):
        wrong.save(path)
        with pytest.raises(ValueError, match="must be a painted picture of 256 x 256"):
            try_versions.read_picture(path)
    PIL.Image.effect_noise((side, side), 60).save(path)
    assert try_versions.read_picture(path).shape == (side, side, 3) and np.ptp(try_versions.read_picture(path)) > 9
