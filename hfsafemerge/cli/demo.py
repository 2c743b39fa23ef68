"""The command demo: the whole flow on one machine."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

from huggingface_hub.cli._framework import Option

from hfsafemerge.cli.root import app, examples, quiet_libraries


@app.command(topic="help", epilog=examples("hfsafemerge demo", "hfsafemerge demo --full --format json", "hfsafemerge demo --serve"))
def demo(
    directory: Annotated[Path, Option("--directory", "-d", help="Where the demo keeps its files.")] = Path("hfsafemerge-demo"),
    full: Annotated[bool, Option("--full", help="Every merge method, not TIES alone.")] = False,
    seed: Annotated[int, Option("--seed", min=0, help="The seed of the lab, of the data and of the searches.")] = 0,
    serve: Annotated[bool, Option("--serve", help="Keep the local Hub running afterwards, to look at what was published.")] = False,
    endpoint: Annotated[str | None, Option("--endpoint", hidden=True, help="The local Hub, when it runs already.")] = None,
) -> None:
    """Run the whole flow offline, with small models and a local Hub.

    The models, of an invented world, are trained the first time (2 minutes on two cores). Nothing is downloaded, and nothing
    leaves this machine.
    """
    from hfsafemerge._cli_output import Progress, out

    if endpoint is None:
        sys.exit(_demo_with_hub(directory, serve))
    from hfsafemerge.lab.demo import Demo, table

    quiet_libraries()
    progress = Progress()
    result = Demo(directory, "alice", seed, full, progress).run()
    progress.close()
    if out.mode.value == "json":
        out.dict(result)
    else:
        out.text(table(result["rows"]))
        out.result(
            "Done",
            pushed=result["pushed"],
            reproduced=result["reproduced"],
            table=str(directory / "table.md"),
            plot=str(directory / "alignment.png"),
        )
    out.hint("merge models of your own: `hfsafemerge init recipe.yaml` writes a recipe to start from")


def _demo_with_hub(directory: Path, serve: bool) -> int:
    """Start the local Hub and do the demo in a child, since the Hub's clients read their settings when they are imported."""
    from hfsafemerge.localhub import serve as serve_hub

    directory.mkdir(parents=True, exist_ok=True)
    with serve_hub(directory / "hub") as hub:
        environment = os.environ | hub.environment | {"HF_HOME": str((directory / "hf").resolve())}
        child = subprocess.Popen([sys.executable, "-m", "hfsafemerge", *sys.argv[1:], "--endpoint", hub.url], env=environment)
        try:
            code = child.wait()
            if serve and code == 0:
                sys.stderr.write(f"The local Hub is at {hub.url}. Press Ctrl-C to stop it.\n")
                hub.process.wait()
        except KeyboardInterrupt:  # the child got it too, and says what to say
            code = child.wait()
    return code
