"""Files that are made for visitors: in one temporary folder, and gone after a time."""

import hashlib
import shutil
import tempfile
import time
import uuid
from pathlib import Path


class Shelf:
    """A temporary folder whose files live for `age` seconds, and which goes with the process."""

    def __init__(self, age: float = 3600):
        self.age = age
        self.folder = Path(tempfile.mkdtemp(prefix="mg-diffusion-demo-"))

    def new(self, name: str) -> Path:
        """A path for a new file, which nobody can guess; old files and stop signs go."""
        self.sweep()
        folder = self.folder / uuid.uuid4().hex
        folder.mkdir()
        return folder / name

    def sweep(self) -> None:
        for each in list(self.folder.iterdir()):
            try:
                if time.time() - each.stat().st_mtime <= self.age:
                    continue
            except FileNotFoundError:  # another thread was quicker
                continue
            if each.is_dir():
                shutil.rmtree(each, ignore_errors=True)
            else:
                each.unlink(missing_ok=True)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def of_session(shelf: Shelf, session: str, suffix: str) -> Path:
    """A file that says something of a session, as on ZeroGPU jobs run in another process."""
    # What a session is called comes from outside.
    return shelf.folder / f"{hashlib.sha256(session.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.{suffix}"


class StopSign:
    """Whether a session wants its job stopped."""

    def __init__(self, shelf: Shelf, session: str):
        self.path = of_session(shelf, session, "stop")

    def put_up(self) -> None:
        self.path.touch()

    def take_down(self) -> None:
        self.path.unlink(missing_ok=True)

    def is_up(self) -> bool:
        return self.path.exists()


class Turn:
    """How often the strengths of a session were taken and let go: odd while one is moved."""

    def __init__(self, shelf: Shelf, session: str):
        self.path = of_session(shelf, session, "turn")

    def reach(self, phase: int) -> None:
        if phase > self.reached:  # messages may overtake each other
            self.path.write_text(str(phase))

    @property
    def reached(self) -> int:
        try:
            return int(self.path.read_text() or 0)  # empty while it is written
        except FileNotFoundError:
            return 0
