"""Serve the Space: `python app.py`, on this machine or on Hugging Face."""

from space.layout import build, launch

if __name__ == "__main__":  # processes that datasets spawns import this file again
    launch(build())
