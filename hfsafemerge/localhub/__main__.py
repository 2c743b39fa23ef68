"""Run a hub: `python -m hfsafemerge.localhub --root DIR --port N`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hfsafemerge.errors import HubError
from hfsafemerge.localhub.server import PURPOSE, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, print the three variables to set, and serve until Ctrl-C."""
    parser = argparse.ArgumentParser("python -m hfsafemerge.localhub", description=PURPOSE)
    parser.add_argument("--root", type=Path, required=True, help="the folder that holds all repositories")
    parser.add_argument("--port", type=int, default=8799, help="0 is any that is free (default: %(default)s)")
    parser.add_argument("--multipart-chunk", type=int, metavar="BYTES", help="have larger files uploaded in parts of that size")
    parser.add_argument("--xet", action="store_true", help="take and give large files by Xet, for one client process at a time")
    parser.add_argument(
        "--cdn", action="store_true", help="redirect downloads of large files to another port, as the Hub does to another host"
    )
    parser.add_argument("--stop-with-input", action="store_true", help="stop when standard input ends")
    options = parser.parse_args(arguments)
    try:
        run(**vars(options))
    except HubError as problem:
        raise SystemExit(str(problem)) from problem


if __name__ == "__main__":
    main()
