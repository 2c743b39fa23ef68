"""Where the weights of a model come from: a folder, or a folder and an adapter that is applied to it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfsafemerge import hub
from hfsafemerge.checkpoint import DTYPES, TIED, Checkpoint, CheckpointWriter, LoraAdapter, TensorInfo, Weights, atomic_folder, is_tied
from hfsafemerge.recipe import ModelRef
from hfsafemerge.running.configuring import GENERATION, copy_small_files


@dataclass(frozen=True)
class Source:
    """The folder of a model, and that of the adapter on it if there is one."""

    folder: Path
    adapter: Path | None = None

    @classmethod
    def pulled(
        cls,
        ref: ModelRef,
        commit: str,
        adapter_commit: str | None,
        *,
        access: hub.Access | None = None,
        adapter_access: hub.Access | None = None,
        notify: hub.Notify = hub.say_nothing,
        tell: hub.Tell = hub.tell_nothing,
    ) -> "Source":
        """A model of the Hub or a local folder, downloaded where needed. Raises as `hub.pull` does."""
        adapter = None
        if ref.adapter is not None:
            adapter = hub.pull_adapter(ref.adapter, str(adapter_commit), adapter_access, notify, tell)
        return cls(hub.pull(ref, commit, access, notify, tell), adapter)

    def opened(self) -> tuple[Weights, Mapping[str, Any]]:
        """The weights, with the adapter applied as they are read, and the configuration. Raises CheckpointError."""
        config = hub.read_json(self.folder / "config.json", str(self.folder))
        base = Checkpoint(self.folder)
        if self.adapter is None:
            return base, config
        adapted = LoraAdapter(self.adapter, base, tied=is_tied(base, config, str(self.folder)))
        return adapted, config | ({TIED: False} if adapted.unties else {})

    def weights(self) -> Weights:
        """The weights, with the adapter applied as they are read. Raises CheckpointError."""
        return self.opened()[0]

    def generation(self) -> Mapping[str, Any]:
        """What generation_config.json says; nothing where there is none. Raises CheckpointError."""
        return hub.read_json(self.folder / GENERATION, str(self.folder)) if (self.folder / GENERATION).exists() else {}

    def dtype(self) -> str:
        """The dtype of the folder's weights, as safetensors names it; F32 where they have several. Integers are no weights."""
        found = {info.dtype for info in Checkpoint(self.folder).tensors.values() if DTYPES[info.dtype].is_floating_point}
        return found.pop() if len(found) == 1 else "F32"


def applied(source: Source, target: Path) -> Path:
    """A folder with the adapter applied to its model, in that model's dtype, for what loads folders; made once."""
    if not target.exists():
        weights, config = source.opened()
        dtype = source.dtype()
        with atomic_folder(target) as part:
            weighted = {name for name, info in weights.tensors.items() if DTYPES[info.dtype].is_floating_point}
            infos = {name: TensorInfo(dtype, info.shape) if name in weighted else info for name, info in weights.tensors.items()}
            writer = CheckpointWriter(part, infos)
            for name, info in infos.items():
                writer.write(name, weights.read(name).to(DTYPES[info.dtype]))
            writer.finish()
            copy_small_files(source.folder, part)
            (part / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return target
