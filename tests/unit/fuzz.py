# SPDX-License-Identifier: Apache-2.0
"""Feeds damaged and hostile files to every reader: `python tests/unit/fuzz.py --cases 3000`.

A reader may return what the whole file holds, or raise a UserError that names the file in one
printable line; nothing else, within seconds and with little memory, and without starting a
program or opening another file. If a file has no checksum, or was changed before its checksum was
computed, what is read may differ from the whole file's content, but must have the right form.

Readers run in a child process, since some hostile files may crash or hang C code, which no signal
interrupts. A child that dies or takes too long is replaced.
"""

import argparse
import collections
import dataclasses
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import List

SECONDS, MEBIBYTES = 5, 100  # the limits for the processor's time and the memory of a case
# How long a child may be silent before it is ended: a busy machine does not fail a case.
SILENT_SECONDS, START_SECONDS = 60, 600
GOOD = ("refused", "equal", "different")
# A message that ends the program, a child that dies, and so on.
BAD = ("wrong", "error", "crash", "hang", "memory", "program")


@dataclasses.dataclass
class Report:
    """The results of all cases.

    Args:
        outcomes: The number of cases by (target, class); the classes are `GOOD` and `BAD`.
        generators: The number of cases by (generator, class).
        reasons: The number of "different" cases by reason.
        failures: Triples (target, case, text).
        slowest: Seconds of the slowest case.
        grown: How much a child's memory grew, in MiB.
    """

    outcomes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    generators: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    reasons: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    failures: List[tuple] = dataclasses.field(default_factory=list)
    slowest: float = 0.0
    grown: float = 0.0

    def add(self, result):
        """Adds what a child reported of a case."""
        self.outcomes[result["target"], result["class"]] += 1
        self.generators[result["generator"], result["class"]] += 1
        if result["class"] == "different":
            self.reasons[result["reason"]] += 1
        if result["class"] in BAD:
            where = f"{result['target']}, {result['generator']}"
            self.failures.append((where, result["case"], f"{result['class']}: {result['text']}"))
        self.slowest = max(self.slowest, result["seconds"])
        self.grown = max(self.grown, result["grown"])

    def as_dict(self, cases, seed):
        """The report as it is written to a file."""

        def count(outcomes, name, classes):
            return {kind: outcomes[name, kind] for kind in classes}

        names = list(dict.fromkeys(name for name, _ in self.outcomes))
        generators = sorted({name for name, _ in self.generators})
        total = collections.Counter()
        for (_, kind), number in self.outcomes.items():
            total[kind] += number
        return {
            "cases": cases,
            "seed": seed,
            "limits": {"seconds": SECONDS, "mebibytes": MEBIBYTES},
            "total": {kind: total[kind] for kind in (*GOOD, *BAD)},
            "targets": {name: count(self.outcomes, name, (*GOOD, *BAD)) for name in names},
            "generators": {
                name: count(self.generators, name, (*GOOD, *BAD)) for name in generators
            },
            "reasons_for_different": dict(sorted(self.reasons.items())),
            "slowest_seconds": round(self.slowest, 2),
            "grown_mebibytes": round(self.grown),
        }


# The child: reads files


class Watch:
    """Notices programs that start, connections, and files other than the case's that open.

    Args:
        folders: Where files may be opened: the case's folder, and what Python imports.
    """

    def __init__(self, folders):
        self.folders, self.events, self.is_on = tuple(folders), [], False
        sys.addaudithook(self.notice)

    def notice(self, event, arguments):
        if not self.is_on:
            return
        if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"):
            self.events.append(event)
        elif event in ("socket.connect", "socket.bind"):
            self.events.append(event)
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if not path.startswith(self.folders):
                self.events.append(f"open {path}")


def read_mebibytes(name):
    """Reads a figure of this process's memory: VmRSS is the present one, VmHWM the peak."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{name}:")[2].split()[0]) / 1024


def reset_peak():
    """Makes the peak of this process's memory the present one (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def read_case(target, path, expected, reason):
    """Reads a file; returns the class of the outcome, and a text for a failure.

    A message must name the file or a part of it.
    """
    from fuzz_cases import same

    from support.errors import UserError

    try:
        found = target.read(str(path))
        if same(found, expected):
            return "equal", ""
        return ("different", "") if reason else ("wrong", "another result without an error")
    except UserError as error:
        text = str(error)
        # A picture in an archive may have any name; its message shows it escaped and shortened.
        is_of_picture = target.name.startswith("pictures") and "can't be decoded" in text
        if is_of_picture or any(name in text for name in (str(path), *target.inner)):
            return "refused", ""
        return "error", f"it does not name the file: {text}"
    except MemoryError:
        return "memory", traceback.format_exc()
    except BaseException:
        return "error", traceback.format_exc()[-3000:]


def send(output, result):
    os.write(output, (json.dumps(result) + "\n").encode())


def run_child(seed, first, cases, output):
    """Reads the files of cases in turn, and writes a line of JSON about each."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import helpers

    from support.processor import prepare

    prepare()
    import fuzz_cases
    import numpy as np
    import paddle

    from support import archives

    paddle.set_device("cpu")
    archives.MAX_BYTES = fuzz_cases.SMALL
    with np.errstate(all="ignore"), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        watch = Watch((name, sys.prefix, sys.base_prefix, str(helpers.ROOT), "/proc", "/sys"))
        targets = fuzz_cases.make_targets(folder)
        path = folder / "case.pdparams"
        expected = {target.name: target.read_whole(path) for target in targets}
        for make in (fuzz_cases.huge_files, fuzz_cases.hanging_pickles, fuzz_cases.crafted_tars):
            make()
        for number in range(first, cases):
            target, rng = targets[number % len(targets)], np.random.default_rng((seed, number))
            generator, case = fuzz_cases.make_case(target, rng)
            result = {"case": number, "target": target.name, "generator": generator}
            send(output, {**result, "class": None})
            case.write(path)
            reset_peak()
            before, start, watch.is_on = read_mebibytes("VmHWM"), time.process_time(), True
            kind, text = read_case(target, path, expected[target.name], case.reason)
            watch.is_on, seconds = False, time.process_time() - start
            if watch.events:
                kind, text = "program", "; ".join(watch.events[:5])
                watch.events.clear()
            grown = read_mebibytes("VmHWM") - before
            if grown > MEBIBYTES:
                kind, text = "memory", f"{kind}, and memory grew by {grown:.0f} MiB"
            result.update({"class": kind, "reason": case.reason, "text": text})
            send(output, {**result, "seconds": seconds, "grown": grown})


# The parent: starts children


def read_lines(child, source, report):
    """Adds the reports of a child to a report.

    Returns:
        How the child ended ("end", "crash" or "hang"), and what it reported last.
    """
    pending, last, limit = b"", None, START_SECONDS
    while True:
        ready, _, _ = select.select([source], [], [], limit)
        block = os.read(source, 1 << 16) if ready else None
        if not block:
            child.kill()
            return ("hang" if block is None else "crash" if child.wait() else "end"), last
        pending += block
        *lines, pending = pending.split(b"\n")
        for line in lines:
            last, limit = json.loads(line), SILENT_SECONDS
            if last["class"]:
                report.add(last)


def fuzz(cases, seed=0):
    """Runs cases over all readers in turn, and returns a `Report`.

    Args:
        cases: Their number.
        seed: Decides on all files.
    """
    report, first = Report(), 0
    while first < cases:
        source, output = os.pipe()
        arguments = ["--child", output, "--first", first, "--cases", cases, "--seed", seed]
        child = subprocess.Popen(
            [sys.executable, __file__, *map(str, arguments)],
            pass_fds=(output,),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        os.close(output)
        end, last = read_lines(child, source, report)
        os.close(source)
        text = child.stderr.read().decode(errors="replace")[-2000:]
        child.stderr.close()
        status = child.wait()
        if last is None:
            raise RuntimeError(f"a child did not start (status {status}): {text}")
        if last["class"] is None:  # the child was at this case
            last.update({"class": end, "text": f"status {status} {text}", "reason": None})
            report.add({**last, "seconds": 0.0, "grown": 0.0})
        first = last["case"] + 1
    if report.slowest > SECONDS:
        report.failures.append(("all", cases, f"a case took {report.slowest:.1f} s"))
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", help="a file for the counts, as JSON")
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        run_child(arguments.seed, arguments.first, arguments.cases, arguments.child)
        return
    report = fuzz(arguments.cases, arguments.seed)
    for name, number, text in report.failures[:20]:
        print(f"--- {name}, case {number}\n{text}")
    for (name, outcome), count in sorted(report.outcomes.items()):
        print(f"{name:20} {outcome:9} {count:6}")
    print(
        f"slowest {report.slowest:.2f} s, memory grew by {report.grown:.0f} MiB, "
        f"{len(report.failures)} failures"
    )
    if arguments.output:
        counts = report.as_dict(arguments.cases, arguments.seed)
        Path(arguments.output).write_text(json.dumps(counts, indent=2) + "\n")
    sys.exit(bool(report.failures))


if __name__ == "__main__":
    main()
