"""A refresh in a process of its own, niced and with one thread: reads a snapshot, writes a bundle or why there is none.

    python -m stream.refresh_worker PARENT CHECKPOINTS graph-3-snapshot.safetensors [graph-2.safetensors]

PARENT is the process that started it, without which it ends; CHECKPOINTS the folder of the files, and of the result. It
opens no store: whoever started it does the rest.
"""

import os
import sys
import threading
import time
from pathlib import Path

import torch

from stream import bundle, snapshot
from stream.checkpoint import write

NICE = 10
LOOK = 0.5  # seconds between two looks at the parent


def main(folder: Path, taken: str, before: str | None = None) -> None:
    """Learn from the snapshot ``taken``; ``before``: the bundle that is served."""
    told = snapshot.from_bytes((folder / taken).read_bytes())
    past = bundle.from_bytes((folder / before).read_bytes()) if before else None
    try:
        write(folder / f"graph-{told.number}.made", bundle.to_bytes(snapshot.learn(told, past)))
    except snapshot.Refused as error:
        write(folder / f"graph-{told.number}.refused", str(error).encode())


def follow(parent: int) -> None:
    """End this process once its parent has, however that was: nobody would take the result."""
    while os.getppid() == parent:
        time.sleep(LOOK)
    os._exit(1)


if __name__ == "__main__":
    os.nice(NICE)
    torch.set_num_threads(1)
    threading.Thread(target=follow, args=[int(sys.argv[1])], daemon=True).start()
    main(Path(sys.argv[2]), *sys.argv[3:])
