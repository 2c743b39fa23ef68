"""Room on the disk, and folders that appear whole or not at all."""

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hfsafemerge.errors import OutOfDisk, RecipeError


def require_space(folder: Path, needed: int) -> None:
    """Raise OutOfDisk unless the file system of `folder` has room for `needed` bytes and a little more."""
    free = shutil.disk_usage(folder).free
    if free < needed * 1.02:
        raise OutOfDisk(f"{folder} needs {in_words(needed)} and has {in_words(free)} free. Make room or choose another directory.")


def in_words(size: float) -> str:
    """A number of bytes such as 16.1 GB or 2.4 MB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk or quota into OutOfDisk."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OutOfDisk(f"The disk filled up while writing to {folder}. Make room, then run the same command again.") from error
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that takes the name `path` only when the block ends well; what stood there goes then."""
    part = path.with_name(path.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        shutil.rmtree(path, ignore_errors=True)
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def size_in_bytes(option: str, size: str | None) -> int | None:
    """The number of bytes that an option gives as 500MB, 5GB or 4GiB. Raises RecipeError when it is no size."""
    if size is None:
        return None
    units = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", size.strip())
    if found is None or found[2].upper() not in units:
        raise RecipeError(f"{option} is {size!r}; write it as 500MB, 5GB or 4GiB.")
    return int(float(found[1]) * units[found[2].upper()])
