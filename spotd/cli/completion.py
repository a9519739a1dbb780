"""``spotd completion``: the script with which a shell completes the command. Decides nothing.

The script asks ``spotd`` itself what may follow, so it is as true as the command is.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands, options and symbols.

    \b
    bash  echo 'eval "$(spotd completion bash)"' >> ~/.bashrc
    zsh   echo 'eval "$(spotd completion zsh)"' >> ~/.zshrc
    fish  spotd completion fish > ~/.config/fish/completions/spotd.fish

    bash has to be 4.4 or newer. Symbols are those of the demand in Redis, if it answers at once.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise AssertionError(f"click knows no {shell}")
    click.echo(
        kind(click.get_current_context().find_root().command, {}, "spotd", _VARIABLE).source()
    )


_VARIABLE = "_SPOTD_COMPLETE"  # click's own name for it, by which the script asks
