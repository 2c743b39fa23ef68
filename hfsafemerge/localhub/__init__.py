"""A small Hub on 127.0.0.1 that the unmodified clients speak to, for trying, demos and testing, offline.

It is for nothing else: its tokens stand in the source, anyone on the machine may use them, and there is no encryption,
no limit and no backup. Never give it another address, and keep nothing in it that matters.

    python -m hfsafemerge.localhub --root hub-data --port 8799

prints the three variables to set before Python starts. Or, in a program:

    with serve(Path("hub-data")) as hub:
        subprocess.run(command, env=os.environ | hub.environment)

It knows models, datasets and Spaces: repositories, branches, tags, commits, pull requests, LFS files in one piece or in parts,
Xet storage where it is asked for, private and gated repositories, cards, collections, searches, jobs, sign-in for apps, and a
page for the browser. No Space or job runs here, and there are no buckets.

There are two users. `hf_alice` is the token of alice, who is in the organisation acme; `hf_bob` that of bob;
`hf_alice_ro` is alice's too, and read-only.
"""

from hfsafemerge.localhub.server import RunningHub, client_environment, create_app, serve
from hfsafemerge.localhub.store import Hub

__all__ = ["Hub", "RunningHub", "client_environment", "create_app", "serve"]
