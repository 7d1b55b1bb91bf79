"""`python -m clca_utils`: the command line of the study."""

import sys

if __name__ == "__main__":
    try:
        from clca_utils.cli import app

        app(prog_name="python -m clca_utils")
    except KeyboardInterrupt:  # while it was still loading
        sys.exit("Interrupted: run the same command again to go on.")
