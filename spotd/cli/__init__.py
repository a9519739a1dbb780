"""The ``spotd`` command: one subcommand per file. They ask and show; they decide nothing."""
