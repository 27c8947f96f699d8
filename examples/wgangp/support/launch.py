# SPDX-License-Identifier: Apache-2.0
"""How a script starts: signals, streams, environment and command line, before Paddle is imported.

Slow modules are imported inside functions, so that signals are handled from the first
milliseconds on.
"""

from __future__ import annotations

import os
import sys

from support import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Mapping
    from typing import Sequence


def begin(script: str, choices: Mapping[str, Sequence]) -> None:
    """Prepares a script's process, before Paddle is imported: it takes seconds to load.

    Sets the variables that libraries read while they are imported, answers --help, and refuses a
    wrong command line: exits with status 2 after one line that says what is wrong. SIGTERM is held
    back from here on, until `jobs.run` handles it.

    Args:
        script: Name of the script's file in conf/, without the suffix.
        choices: Values of the script's own settings, in addition to `settings.CHOICES`.
    """
    signals.end_at_once_on_signals()
    open_closed_streams()
    import threading

    from support import command_line
    from support import help_pages
    from support.errors import UserError
    from support.errors import fail
    from support.processor import prepare

    escape_unprintable()
    sys.excepthook, threading.excepthook = _report, _report_thread
    prepare()
    try:
        if command_line.only_prints(sys.argv[1:]):
            signals.end_on_broken_pipe()
        topic = command_line.find_topic(sys.argv[1:])
        if topic is not None:
            print(help_pages.write_help(script, choices, topic))
            sys.exit()
        command_line.check(script, choices, sys.argv[1:])
    except UserError as error:
        fail(str(error))
    if "paddle" not in sys.modules:
        signals.hold_sigterm()


def escape_unprintable() -> None:
    """Lets the standard streams write what their encoding lacks as backslash escapes.

    Names of files and classes may hold any character, and pipes of Windows and of minimal systems
    have encodings with few.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # A notebook's streams write everything.
            stream.reconfigure(errors="backslashreplace")


def open_closed_streams() -> None:
    """Opens the standard streams that are closed, as by `2>&-`, to nothing.

    Without that, the next file that is opened would take the place of the stream, and messages
    would be written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+" if number == 0 else "w", encoding="utf-8"))


def _report(kind, error, trace) -> None:
    """An excepthook: little memory becomes one line, also where a module can't be imported."""
    from support.errors import explain
    from support.errors import fail

    if explain(error) is None:
        sys.__excepthook__(kind, error, trace)
    else:
        fail(explain(error))


def _report_thread(arguments) -> None:
    """An excepthook of threads: the process ends if one of them runs out of memory.

    Paddle reads data in a thread, and without it the training would wait forever.
    """
    import threading

    from support.errors import explain
    from support.errors import fail
    from support.jobs import log_to_file

    message = explain(arguments.exc_value)
    if message is None:
        threading.__excepthook__(arguments)
        return
    try:
        log_to_file(message)
        fail(message)
    finally:
        os._exit(2)
