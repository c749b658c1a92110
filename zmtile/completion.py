"""Shell completion of FITS files: what click's scripts for bash, zsh and fish lack.

Click offers commands, options and choices, or leaves paths of any kind to the shell. Here FITS files
and folders are offered, as items of the type 'fits', for which the scripts get a branch.
"""

from __future__ import annotations

import os
from typing import Any

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ZshComplete,
    add_completion_class,
)

from zmtile.frames.inputs import SUFFIXES

__all__ = ["fits_files", "teach_shells"]

# Readline puts a slash behind folders instead of a blank, and quotes what needs it.
_BASH = """elif [[ $type == 'fits' ]]; then
            compopt -o filenames
            COMPREPLY+=("$value")
        elif [[ $type == 'plain' ]]; then"""

# Zsh finds the files itself: it expands what was typed, and quotes what needs it.
_ZSH = """elif [[ "$type" == "fits" ]]; then
            _files -g "*.(#i)({suffixes})"
        elif [[ "$type" == "file" ]]; then"""


def fits_files(incomplete: str) -> list[CompletionItem[str]]:
    """Return the FITS files and the folders whose paths begin so."""
    folder, begun = os.path.split(incomplete)
    try:
        entries = sorted(os.scandir(os.path.expanduser(folder) or "."), key=lambda entry: entry.name)
    except OSError:  # there is no such folder
        return []
    return [
        CompletionItem(os.path.join(folder, entry.name) + ("/" if entry.is_dir() else ""), type="fits")
        for entry in entries
        if entry.name.startswith(begun)
        and (not entry.name.startswith(".") or begun.startswith("."))
        and (entry.is_dir() or entry.name.lower().endswith(SUFFIXES))
    ]


class _Bash(BashComplete):
    source_template = BashComplete.source_template.replace("elif [[ $type == 'plain' ]]; then", _BASH)

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Return the line for the script; readline knows itself what is a folder."""
        return f"{item.type},{item.value.rstrip('/') if item.type == 'fits' else item.value}"


class _Zsh(ZshComplete):
    source_template = ZshComplete.source_template.replace(
        'elif [[ "$type" == "file" ]]; then',
        _ZSH.format(suffixes="|".join(suffix.lstrip(".") for suffix in SUFFIXES)),
    )

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        """Return the items; of files, one for all."""
        items = super().get_completions(args, incomplete)
        return items[:1] if items and items[0].type == "fits" else items


class _Fish(FishComplete):
    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Return the line for the script; fish puts no blank behind a slash, and quotes what needs it."""
        if item.type == "fits":
            item = CompletionItem(item.value, help=item.help)
        return super().format_completion(item)


def teach_shells() -> None:
    """Let click use these instead of its own."""
    for shell in (_Bash, _Zsh, _Fish):
        add_completion_class(shell)
