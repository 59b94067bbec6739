"""`python -m pretrain_cli`, the form that torchrun starts."""

from pretrain_cli.cli.app import main

if __name__ == "__main__":
    main()
