"""Where the tile goes: written beside its target under another name, moved there only when complete."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from zmtile.errors import TargetError

__all__ = ["check_target", "check_tile_target", "new_file"]

# Names that would belie what is in the file of a tile.
NOT_FITS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".xisf", ".gz", ".fz", ".txt", ".json", ".html", ".htm")

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES}


def check_target(path: str | os.PathLike[str], overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    """Refuse a target, before any work is done, that is one of the inputs or that `new_file` would refuse.

    Whether the folder can be written to is found out by creating a file there, and removing it.

    Raises
    ------
    TargetError
    """
    if any(_is_same(path, other) for other in inputs):
        raise TargetError(
            f"{path}: the output is one of the inputs", "Choose another name, or take it out of the inputs."
        )
    target = _resolved(path, overwrite)
    temporary = _temporary(target)
    try:
        os.close(_created(temporary))
    except OSError as error:
        raise _explained(target, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def check_tile_target(path: str | os.PathLike[str], inputs: Sequence[Path], overwrite: bool) -> None:
    """Refuse a target of a tile that cannot be written or that is one of the inputs, before the long work.

    Raises
    ------
    TargetError
    """
    target = Path(path)
    if target.suffix.lower() in NOT_FITS:
        raise TargetError(
            f"{target}: a tile is a plain FITS file, its name says otherwise",
            "Let it end in .fits; zmtile preview makes pictures of it.",
        )
    check_target(target, overwrite, inputs)


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str], overwrite: bool) -> Iterator[BinaryIO]:
    """Open a file for writing that appears at its path complete, or not at all.

    Parameters
    ----------
    path : path
        A symbolic link is followed: the file that it points to is replaced.
    overwrite : bool
        Replace an existing file. Without it, not even a file that appears meanwhile is harmed.

    Yields
    ------
    binary file
        Named ``.<name>.<pid>.<random>.tmp``, in the target's folder, until it is complete. Any
        exception, also one that stops the run, removes it.

    Raises
    ------
    TargetError
        When the target exists, its folder is missing or closed, or the disk is full.
    """
    target = _resolved(path, overwrite)
    temporary = _temporary(target)
    try:
        with os.fdopen(_created(temporary), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _move(temporary, target, overwrite)
    except OSError as error:
        raise _explained(target, error) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _is_same(path: str | os.PathLike[str], other: Path) -> bool:
    """Tell whether two paths lead to one file, or will, once it is there."""
    try:
        return os.path.samefile(path, other)
    except OSError:  # one of them is not there yet
        return os.path.realpath(path) == os.path.realpath(other)


def _resolved(path: str | os.PathLike[str], overwrite: bool) -> Path:
    """Return the file that is really meant, after the checks that need no writing."""
    target = Path(os.path.realpath(path))
    try:
        if target.is_dir():
            raise TargetError(
                f"{path}: this is a folder", "Name the file to write, for instance tile.fits in it."
            )
        if not target.parent.is_dir():
            raise TargetError(
                f"{path}: there is no folder {target.parent}", "Create it first, or choose another place."
            )
        if os.path.lexists(target):
            if not target.is_file():
                raise TargetError(f"{path}: this is no regular file", "Choose another name.")
            if not overwrite:
                raise _exists(target)
    except OSError as error:  # a name that is too long, a folder that may not be searched
        raise _explained(target, error) from None
    return target


def _exists(target: Path) -> TargetError:
    return TargetError(f"{target}: the file exists", "Add --overwrite to replace it, or choose another name.")


def _temporary(target: Path) -> Path:
    """Return a new name in the same folder: only within one file system can a file be moved at once."""
    stem = os.fsencode(target.name)[:200].decode(errors="ignore")  # file systems allow 255 bytes
    return target.with_name(f".{stem}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def _created(temporary: Path) -> int:
    # 0o666 less the umask, as for any new file; tempfile would make it private.
    return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _move(temporary: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, target)
        return
    try:
        os.link(temporary, target)  # unlike a rename, it fails when the target exists
    except FileExistsError:
        raise _exists(target) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(target):
            raise _exists(target) from None
        os.rename(temporary, target)


def _sync_folder(folder: Path) -> None:
    """Make the new name last; some file systems cannot, and the file itself is safe already."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _explained(target: Path, error: OSError) -> TargetError:
    """Return what went wrong, and what to do about it, in the user's terms."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TargetError(
            f"{target}: no space left ({error.strerror})", "Free some space, or choose another disk."
        )
    if error.errno == errno.EFBIG:
        return TargetError(
            f"{target}: the file would be larger than allowed here",
            "Raise the limit, or choose another disk.",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return TargetError(
            f"{target}: no permission to write there ({error.strerror})",
            "Choose a folder that you may write to.",
        )
    if error.errno == errno.ENAMETOOLONG:
        return TargetError(f"{target}: the name is too long", "Choose a shorter one.")
    return TargetError(f"{target}: it cannot be written ({error.strerror or error})", "Choose another place.")
