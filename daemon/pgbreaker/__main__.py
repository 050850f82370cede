"""``python -m pgbreaker`` is the command line, too."""

from pgbreaker.cli import main

if __name__ == "__main__":
    main()
