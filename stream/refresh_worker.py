"""A refresh in a process of its own, niced and with one thread: reads a snapshot, writes a bundle or why there is none.

    python -m stream.refresh_worker CHECKPOINTS graph-3-snapshot.safetensors [graph-2.safetensors]

CHECKPOINTS is the folder of the files, and of the result. It opens no store: whoever started it does the rest.
"""

import os
import sys
from pathlib import Path

import torch

from stream import bundle, snapshot
from stream.checkpoint import write

NICE = 10


def main(folder: Path, taken: str, before: str | None = None) -> None:
    """Learn from the snapshot ``taken``; ``before``: the bundle that is served."""
    told = snapshot.from_bytes((folder / taken).read_bytes())
    past = bundle.from_bytes((folder / before).read_bytes()) if before else None
    try:
        write(folder / f"graph-{told.number}.made", bundle.to_bytes(snapshot.learn(told, past)))
    except snapshot.Refused as error:
        write(folder / f"graph-{told.number}.refused", str(error).encode())


if __name__ == "__main__":
    os.nice(NICE)
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), *sys.argv[2:])
