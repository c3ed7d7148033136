"""Every line of every bash block in README and pages is read by the real parser of the program that it calls.

Lines are *run* where they are quick and need nothing (`python -m demo.references`); all others are *checked*: of our commands
every flag and value, of others (make, pip, uv, docker, git, accelerate) what of it belongs to this repository.
"""

import argparse
import re
import runpy
import sys
import tomllib

import pytest
from documented import ROOT, Block, blocks, commands


class Parsed(BaseException):
    """The flags were read; what they ask for is not done."""


@pytest.fixture
def only_parsing(monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)


def check_module(module: str, arguments: list[str], monkeypatch) -> None:
    """`python -m MODULE ARGUMENTS`, until its flags are read."""
    if module == "mg_diffusion.training" and "..." not in arguments:
        return check_training(arguments)
    if module == "mg_diffusion.cli":
        return check_command(arguments, monkeypatch)
    arguments = [one for one in arguments if one != "..."]
    places = [ROOT / (module.replace(".", "/") + end) for end in (".py", "/__main__.py", "/__init__.py")]
    (place, *_) = [place for place in places if place.is_file()] or pytest.fail(f"there is no module {module}")
    if module == "mg_diffusion.training":  # the dots stand for flags that it needs
        from mg_diffusion.training.arguments import STAGES

        assert arguments[0] in STAGES
    elif "parse_args" in place.read_text(encoding="utf-8"):
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        with pytest.raises(Parsed):
            runpy.run_module(module, run_name="__main__")
    else:
        assert "sys.argv" in place.read_text(encoding="utf-8") or not arguments


def check_training(arguments: list[str]) -> None:
    from mg_diffusion.training.arguments import build_parser

    with pytest.raises(Parsed):
        build_parser().parse_args(arguments)


def check_command(words: list[str], monkeypatch) -> None:
    from mg_diffusion.cli.parser import build_parser

    with pytest.raises(Parsed):
        build_parser().parse_args(words)


def check_launch(words: list[str], monkeypatch) -> None:
    """`accelerate launch FLAGS -m MODULE ARGUMENTS`."""
    from accelerate.commands.launch import launch_command_parser

    split = words.index("-m")
    with pytest.raises(Parsed):
        launch_command_parser().parse_args([*words[1:split], "-m", words[split + 1]])
    if "--config_file" in words:
        assert (ROOT / words[words.index("--config_file") + 1]).is_file()
    check_module(words[split + 1], words[split + 2 :], monkeypatch)


def check_python(words: list[str], monkeypatch) -> None:
    if words[0] == "-m" and words[1] != "venv":
        check_module(words[1], words[2:], monkeypatch)
    elif words[0] != "-m":
        assert (ROOT / words[0]).is_file()
        check_module(words[0].removesuffix(".py").replace("/", "."), words[1:], monkeypatch)


def check_make(words: list[str], monkeypatch) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name, is_variable, _ = word.partition("=")
        assert re.search(rf"\$\({name}\)" if is_variable else rf"^{name}:.*##", makefile, re.MULTILINE), word


def check_pip(words: list[str], monkeypatch) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for asked in re.findall(r"(?:\.|mg-diffusion)\[([\w,]+)\]", " ".join(words)):
        assert set(asked.split(",")) <= set(extras), asked
    assert "-c" not in words or (ROOT / words[words.index("-c") + 1]).is_file()


def check_docker(words: list[str], monkeypatch) -> None:
    assert (ROOT / "Dockerfile").is_file() and words[0] in ("build", "run")


def check_file(words: list[str], monkeypatch) -> None:
    assert (ROOT / words[0]).is_file()


def nothing(words: list[str], monkeypatch) -> None:
    """What belongs to others altogether."""


CHECKS = {
    "mg-diffusion": check_command,
    "python": check_python,
    "accelerate": check_launch,
    "make": check_make,
    "pip": check_pip,
    "uv": check_pip,
    "docker": check_docker,
    "gradio": check_file,
    "git": nothing,
    "source": nothing,
    "claude": nothing,
    "cd": nothing,
    "ln": nothing,
    "curl": nothing,
}


@pytest.mark.parametrize("block", blocks("bash"), ids=str)
def test_flags_are_known(block: Block, only_parsing, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # nothing is written into the checkout
    for program, *words in commands(block):
        if program == ".ci/run":
            assert (ROOT / program).is_file()
        else:
            CHECKS[program](words, monkeypatch)


def test_the_example_pictures_are_those_that_the_pages_name(tmp_path):
    from demo.references import write_pictures

    written = {path.name for path in write_pictures(tmp_path / "pictures")}
    page = (ROOT / "docs" / "five-minutes.md").read_text(encoding="utf-8")
    named = set(re.findall(r"pictures/([\w-]+\.png)", page))
    assert named and named <= written
