"""`python -m parentage`."""

from parentage.cli import run

if __name__ == "__main__":
    run()
