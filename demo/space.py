"""Write the files of a Space to a folder: `python -m demo.space FOLDER`."""

import shutil
import sys
from pathlib import Path


HERE = Path(__file__).parent
APP = "from demo.app import main\n\n\nmain([])\n"


def write_space(folder: Path) -> Path:
    """The page, the README.md that the Hub shows, its requirements and the file that starts it.

    Raises:
        ValueError: if the folder holds anything.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"The folder {str(folder)!r} is not empty. Name a new one.")
    ignored = shutil.ignore_patterns(
        "__pycache__", "README.md", "requirements.txt", "space.py", "pages.py", "showcase.py"
    )
    shutil.copytree(HERE, folder / "demo", ignore=ignored)
    for name in ("README.md", "requirements.txt"):
        shutil.copy(HERE / name, folder / name)
    (folder / "app.py").write_text(APP, encoding="utf-8")
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m demo.space FOLDER")
    try:
        print(write_space(Path(sys.argv[1])))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
