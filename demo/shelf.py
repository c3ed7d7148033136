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


class StopSign:
    """Whether a session wants its job stopped; a file, because on ZeroGPU the job runs in another process."""

    def __init__(self, shelf: Shelf, session: str):
        # What a session is called comes from outside.
        name = hashlib.sha256(session.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        self.path = shelf.folder / f"{name}.stop"

    def put_up(self) -> None:
        self.path.touch()

    def take_down(self) -> None:
        self.path.unlink(missing_ok=True)

    def is_up(self) -> bool:
        return self.path.exists()
