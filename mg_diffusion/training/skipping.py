"""What is skipped of a data set: counted by reason, named in a report, and limited to a share."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .disk import write_text


@dataclass
class Skipped:
    """Files that are skipped of one part of the data.

    part: what a line of the report belongs to, such as {"split": "train"}.
    files: {"name", "reason", "detail"} of each.
    """

    part: dict[str, Any]
    files: list[dict[str, str]] = field(default_factory=list)

    def add(self, name: str, reason: str, detail: str = "") -> None:
        self.files.append({"name": name, "reason": reason, "detail": detail})

    def __len__(self) -> int:
        return len(self.files)

    def __str__(self) -> str:
        """Such as "3 damaged, 1 too small"."""
        counts = Counter(file["reason"] for file in self.files).most_common()
        return ", ".join(f"{count} {reason}" for reason, count in counts)

    def report(self, path: Path) -> None:
        """Name the files in a report of JSON lines, in place of what it says of this part."""
        others = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
        others = [line for line in others if not self.part.items() <= line.items()]
        lines = [*others, *({**self.part, **file} for file in self.files)]
        if not lines:
            return path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        # What is no UTF-8 in a name of a file is escaped.
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))

    def check(self, share: float, limit: float, place: str, report: Path | None) -> None:
        """Raise a ValueError if `share`, that of the skipped among all files, is above `limit`."""
        if share <= limit:
            return
        names = ", ".join(repr(file["name"]) for file in self.files[:5]) + (", ..." if len(self) > 5 else "")
        where = f" All of them are named in {str(report)!r}." if report else ""
        raise ValueError(
            f"{len(self)} files of {place} are skipped ({self}), a share of {share:.2f} where --max_skipped_share allows "
            f"{limit}: {names}.{where} Mend or remove them, or allow a larger share."
        )
