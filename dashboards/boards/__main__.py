"""Write every dashboard that is old, and name it."""

import sys
from pathlib import Path

from .files import written

HOME = Path(__file__).parents[1]


def main() -> None:
    for name, text in written().items():
        path = HOME / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            sys.stdout.write(f"{path.relative_to(HOME.parent)}\n")


if __name__ == "__main__":
    main()
