"""`ureg demo`: see it work, on a registry that is removed afterwards."""

from __future__ import annotations

import click

from universal_registry.cli.command import Example, command


@command("demo", Example("ureg demo"), Example("ureg demo --real-time", "with the true times of retry and breaker"))
@click.option("--real-time", is_flag=True, help="Do not divide the times of retry and breaker by ten.")
@click.option("--folder", "folders", multiple=True, metavar="FOLDER", help="Look for git repositories below it.")
def demo(real_time: bool, folders: tuple[str, ...]) -> int:
    """Read this machine into a registry of its own, and deliver it to five receivers through failures and a kill.

    Nothing but loopback is spoken to, no registry that runs is touched, and all of it is removed at the end.
    """
    import sys

    from universal_registry.cli.machine import this_machine
    from universal_registry.demo import run
    from universal_registry.environment import environment
    from universal_registry.kernel.world import SystemWorld

    return run(
        world=SystemWorld(),
        machine=this_machine(folders),
        environ=environment(),
        out=sys.stdout,
        real_time=real_time,
    )
