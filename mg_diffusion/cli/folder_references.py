"""A folder in the place of a reference: each of its pictures takes that place in turn, and makes a picture of its own."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..granularities import GRANULARITIES
from .folders import Job, output_paths, plan, plan_of, work_through
from .references import ReferenceArguments, parse_references, split_reference
from .resumed import is_other
from .sheets import complete_sheet


FLAGS = (*GRANULARITIES, *(f"negative_{name}" for name in GRANULARITIES))


@dataclass(frozen=True)
class Place:
    """Where in the flags a folder stands."""

    flag: str  # by its name in the options
    index: int  # among the references of that flag
    folder: str

    @property
    def text(self) -> str:
        return f"--{self.flag.replace('_', '-')} {self.folder!r}"

    def filled(self, options: argparse.Namespace, file: Path) -> argparse.Namespace:
        """The flags with a file there; what stands behind the folder stands behind the file."""
        row = list(getattr(options, self.flag))
        row[self.index] = str(file) + row[self.index][len(self.folder) :]
        return argparse.Namespace(**{**vars(options), self.flag: row})


def make_for_each(
    options: argparse.Namespace,
    make: Callable[[ReferenceArguments, Sequence[Path]], Any],
    asked: Callable[[ReferenceArguments], dict[str, Any]],
    defaulted: tuple[str, ...] = (),
) -> int:
    """Make what the flags ask for: once, or for each picture of the folder that is among the references.

    Args:
        make: called with the references and with the files to write.
        asked, defaulted: the recipe of what is made of references, and those settings of it that flags need not give; see
            `resumed.is_other`.

    Returns:
        the exit status: 1 if any picture of a folder failed.
    """
    places = _folders_of(options)
    if len(places) > 1:
        named = " and ".join(place.text for place in places)
        raise ValueError(
            f"One reference may be a folder whose pictures take turns; {named} are. Name files for the others."
        )
    if options.output_dir is None:
        if places:
            raise ValueError(
                f"{places[0].text} is a folder, of which each picture makes one: --output-dir DIR in place of -o."
            )
        arguments = parse_references(options)
        make(arguments, output_paths(options, arguments.files))
        return 0
    if not places:
        raise ValueError("--output-dir is for the pictures of a folder, and no reference names one. Give -o FILE.png.")
    return _make_all(options, places[0], make, asked, defaulted)


def _make_all(
    options: argparse.Namespace,
    place: Place,
    make: Callable[[ReferenceArguments, Sequence[Path]], Any],
    asked: Callable[[ReferenceArguments], dict[str, Any]],
    defaulted: tuple[str, ...],
) -> int:
    (first, *_) = plan([place.folder], options.output_dir, options.num_images, force=options.force)
    others = parse_references(place.filled(options, first.source)).files  # so that all flags are checked, too
    jobs = plan_of(options, [place.folder], others)

    def arguments_of(job: Job) -> ReferenceArguments:
        return parse_references(place.filled(options, job.source))

    return work_through(
        jobs,
        lambda job: make(arguments_of(job), job.targets),
        options.force,
        lambda job: complete_sheet(options, job.targets),
        lambda job: is_other(job.targets[0], asked(arguments_of(job)), defaulted),
    )


def _folders_of(options: argparse.Namespace) -> list[Place]:
    found = []
    for flag in FLAGS:
        for index, text in enumerate(getattr(options, flag) or ()):
            head, _ = split_reference(text)
            if not head.startswith("#") and Path(head).is_dir():
                found.append(Place(flag, index, head))
    return found
