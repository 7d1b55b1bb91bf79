"""`python -m clca_utils`: the command line of the study."""

from clca_utils.cli import app

if __name__ == "__main__":
    app(prog_name="python -m clca_utils")
