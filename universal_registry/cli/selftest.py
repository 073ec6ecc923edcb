"""`ureg selftest`: the product's own proofs, on this machine. They touch no registry."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from universal_registry.cli.command import Command, Example, Group
from universal_registry.cli.output import write


@click.group("selftest", cls=Group, examples=(Example("ureg selftest sync --seeds 100"),))
def selftest() -> None:
    """Proofs that run here, and touch no registry."""


@selftest.command(
    "sync",
    cls=Command,
    examples=(
        Example("ureg selftest sync --seeds 1000", "a minute or two"),
        Example("ureg selftest sync --seed 7"),
    ),
)
@click.option(
    "--seeds", type=click.IntRange(1, 1_000_000), default=100, metavar="N", help="How many runs; 100 if absent."
)
@click.option("--seed", type=click.IntRange(0), metavar="N", help="The first run, or with no --seeds the only one.")
@click.pass_context
def sync(context: click.Context, seeds: int, seed: int | None) -> None:
    """Simulate registries that keep the same records while links break, frames are damaged, clocks go wrong, and disks
    are wiped, restored and copied. Each has a real store of its own: SQLite, in a temporary folder.

    After every step an oracle that knows the full history compares; in the end all must hold the same, and be silent. A
    run is fixed by its seed. Exits with 1 at the first that fails, and names its seed.
    """
    import asyncio

    only = seed is not None and context.get_parameter_source("seeds") is click.core.ParameterSource.DEFAULT
    first = seed or 0
    asyncio.run(_simulate(range(first, first + (1 if only else seeds))))


async def _simulate(seeds: range) -> None:
    """Run these, and tell. Raises Corrupt at the first that fails."""
    from universal_registry.kernel.errors import Corrupt
    from universal_registry.registry.catalogue import load_catalogue
    from universal_registry.storage.sync_machines import SqliteEngine, Workshop, catalogue_of_simulation
    from universal_registry.sync.oracle import Violation
    from universal_registry.sync.simulator import simulate

    writes = frames = 0
    with tempfile.TemporaryDirectory(prefix="ureg-selftest-") as folder:
        catalogue = catalogue_of_simulation(load_catalogue())
        engine = SqliteEngine(Path(folder) / "template.db", catalogue)
        machines = Workshop(Path(folder), engine, catalogue)
        for seed in seeds:
            try:
                report = await simulate(seed, machines)
            except Violation as error:
                raise Corrupt(str(error), hint=f"run it again: ureg selftest sync --seed {seed}") from None
            writes, frames = writes + report.writes, frames + report.frames
    what = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    write(
        f"sync: {what} passed over {machines.what} stores: {writes} versions written, {frames} frames, "
        "nothing lost, all equal in the end"
    )
