"""The Space: a page and an API that start, watch, show and publish runs of hfsafemerge. Only here is gradio imported."""

import os

if os.environ.get("SYSTEM") == "spaces":  # before any client of the Hub reads it: no call may use the token of the Space's owner
    os.environ["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"  # noqa: S105 (a setting)
if os.environ.get("SPACES_ZERO_GPU"):  # before torch, which it makes fit for bursts
    import spaces  # noqa: F401 - importing it is what it is for
