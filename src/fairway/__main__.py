"""``python -m fairway``."""

from fairway.cli import main

if __name__ == "__main__":
    main()
