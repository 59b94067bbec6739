"""Starts ptk: the `ptk` command, and `python -m pretrain_cli`, which torchrun runs."""

import os
import sys


def main() -> None:
    """Load the command line and run it. A signal during loading prints no traceback either."""
    try:
        if "_PTK_COMPLETE" in os.environ:  # before anything that takes long to load: a shell waits for the answer
            from pretrain_cli.cli.tab import answer

            if (told := answer(os.environ)) is not None:
                sys.stdout.buffer.write(told[0].encode())
                sys.exit(told[1])
        from pretrain_cli.cli.stopping import STOPPING

        STOPPING.listen()
        from pretrain_cli.cli.app import main as run
    except KeyboardInterrupt:
        from pretrain_cli.cli.stopping import STOPPING

        message, exit_code = STOPPING.tell()
        sys.stderr.write(f"{message}\nNothing had started yet.\n")
        sys.stderr.flush()
        os._exit(exit_code)  # a half-imported library could print its own errors at a normal exit
    run()


if __name__ == "__main__":
    main()
