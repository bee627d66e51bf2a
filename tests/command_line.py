"""`belated` as a command, in this process, which has imported already what each would import anew."""

import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import NamedTuple

import pytest

from stream.cli import main


class Done(NamedTuple):
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


def belated(*arguments: object) -> Done:
    """`belated` with these arguments."""
    said, told, heard = StringIO(), StringIO(), signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(told):
        patch.setattr(sys, "argv", ["belated", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    signal.signal(signal.SIGTERM, heard)
    code = ended.value.code
    return Done(code if isinstance(code, int) else 0, said.getvalue(), told.getvalue())
