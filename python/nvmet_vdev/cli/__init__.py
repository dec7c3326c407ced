"""The command line: `nvmet-vdev run | serve | save | ctl | identify | bench | backends | …`.

This module finds a command and turns every failure into one line and an exit status; each
command is a module of its own, imported when it is asked for, so that `run` starts fast and
stays small.

Exit status: 0 done; 1 the work failed (a drive gave errors, a shutdown did not finish);
2 the request cannot be done as written; 70 a bug of nvmet-vdev; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import click

from nvmet_vdev import ConfigError, NvmetError, __version__
from nvmet_vdev.cli import verbosity
from nvmet_vdev.errors import UsageError, one_line
from nvmet_vdev.output import complain

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BUG = 70
EXIT_INTERRUPTED = 130

_COMMANDS = ("run", "serve", "save", "ctl", "identify", "bench", "backends", "check-backend", "demo")


class _Commands(click.Group):
    """Commands that are imported only when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module = cmd_name.replace("-", "_")
        command = importlib.import_module(f"nvmet_vdev.cli.{module}").command
        assert isinstance(command, click.Command)  # noqa: S101 - for the type checker
        return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  nvmet-vdev demo
  nvmet-vdev run disk.img --create 10G
  nvmet-vdev identify /run/user/1000/nvmet-vdev/disk.sock

\b
`nvmet-vdev COMMAND --help` has more. Completion in bash:
  eval "$(_NVMET_VDEV_COMPLETE=bash_source nvmet-vdev)"
""",
)
@click.version_option(__version__, "-V", "--version", prog_name="nvmet-vdev", message="%(prog)s %(version)s")
def commands() -> None:
    """A local NVMe drive for a virtual machine, served over a vfio-user socket.

    No root, no hugepages, no kernel module: QEMU (10.1.1 and later) and Cloud Hypervisor
    attach to the socket, and the guest sees an ordinary NVMe drive.
    """


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a file that output is sent to may say."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status; never raises, never prints a traceback unasked."""
    if "_NVMET_VDEV_COMPLETE" in os.environ:
        # Known to click by being imported.
        importlib.import_module("nvmet_vdev.cli.completion")
    try:
        # A command that returns has succeeded; `ctx.exit(n)` comes back as n.
        status = commands.main(args=args, prog_name="nvmet-vdev", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(error.format_message() + "\n")
        return EXIT_USAGE
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "nvmet-vdev"
        complain(f"{one_line(error.format_message()).rstrip('.')}; see '{command} --help'")
        return EXIT_USAGE
    except click.ClickException as error:
        complain(one_line(error.format_message()))
        return EXIT_USAGE
    except (UsageError, ConfigError) as error:
        complain(one_line(str(error)))
        return EXIT_USAGE
    except NvmetError as error:
        complain(one_line(str(error)))
        return EXIT_FAILED
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once more at exit.
        sys.stderr.close()
        return EXIT_FAILED
    except OSError as error:
        if error.errno not in _NO_ROOM or error.filename is not None:
            return _report_bug(error)
        complain(f"the output cannot be written: {error.strerror}; send it somewhere else")
        # What is still to be written goes nowhere: Python would complain once more at exit.
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nowhere, sys.stdout.fileno())
        return EXIT_FAILED
    except SystemExit as error:
        # click's own answer to a closed pipe.
        return error.code if isinstance(error.code, int) else EXIT_FAILED
    # A panic in Rust arrives as a BaseException.
    except BaseException as error:
        return _report_bug(error)
    return status if isinstance(status, int) else 0


def _report_bug(error: BaseException) -> int:
    if verbosity.level():
        traceback.print_exception(error)
    hint = "" if verbosity.level() else "; run it again with -v for the details and report them"
    complain(f"internal error: {one_line(f'{type(error).__name__}: {error}')}{hint}")
    return EXIT_BUG
