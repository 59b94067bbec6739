"""Where a process of ptk begins: the `ptk` command, and `python -m pretrain_cli`, the form that torchrun starts."""

import os
import sys


def main() -> None:
    """Load the command line and run it; Ctrl-C in the meantime is no traceback either."""
    try:
        from pretrain_cli.cli.app import main as run
    except KeyboardInterrupt:
        sys.stderr.write("Error: Stopped by Ctrl-C.\nHint: Nothing was begun.\n")
        sys.stderr.flush()
        os._exit(130)  # a half imported library would have its say at a usual exit
    run()


if __name__ == "__main__":
    main()
