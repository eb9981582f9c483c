"""What is kept over restarts of the daemon: facts, changes of versions, commands in flight, UUIDs, and how hand-offs
ended; in an SQLite file.

``Keeper`` is what the daemon uses: it takes what changes without waiting for a disk, and has it written by a thread of its
own, in batches. ``Store`` is the file, blocking; ``backlog`` is what waits to be written; ``rows`` says what the file may
hold. What was agreed is never restored: it belongs to a channel.
"""

from .file import MisplacedStateFile, Store
from .keeper import Keeper, Loaded, Remembered

__all__ = ["Keeper", "Loaded", "MisplacedStateFile", "Remembered", "Store"]
