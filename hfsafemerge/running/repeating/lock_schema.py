"""The JSON schema of the lock, published in schemas/: `python -m hfsafemerge.running.repeating.lock_schema` prints it."""

import json
import sys
from pathlib import Path
from typing import Any

from hfsafemerge.running.repeating.locked import FORMAT, SCHEMA, Lock

FILE = Path(__file__).parents[2] / "schemas" / "lock.schema.json"


def lock_schema() -> dict[str, Any]:
    """What every lock of this format fits."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA,
        **Lock.model_json_schema(mode="serialization", by_alias=True),
        "title": f"hfsafemerge.lock.json, format {FORMAT}",
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(lock_schema(), indent=2) + "\n")
