"""Whether this machine is ready to run, and the one command that helps where it is not."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from mmpt_bench.cli.options import JSON, OUT, print_json
from mmpt_bench.cli.streams import echo
from mmpt_bench.common.errors import BenchError, UntrustedRecord
from mmpt_bench.common.files import check_can_write

NEEDED = {
    "torch": "2.6",
    "transformers": "5.0",
    "peft": "0.18",
    "datasets": "4.0",
    "pandas": "2.2",
    "matplotlib": "3.9",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    found: str
    helps: str = ""


@click.command()
@click.option(
    "--repair", "is_repair", is_flag=True, help="Set damaged lines of records aside; keep a copy of the files."
)
@OUT
@JSON
def doctor(out: Path, as_json: bool, is_repair: bool) -> None:
    """Say whether this machine is ready, and what to do where it is not.

    Nothing is made or changed without `--repair`, but for a lock file that is removed at once.
    """
    if is_repair:
        _repair(out)
    found = list(findings(out))
    if as_json:
        print_json([asdict(f) for f in found])
    else:
        for f in found:
            echo(f"{'ok     ' if f.ok else 'PROBLEM'} {f.what}: {f.found}{'. ' + f.helps if f.helps else ''}")
    sys.exit(0 if all(f.ok for f in found) else 3)


def _repair(out: Path) -> None:
    """Sets damaged lines of records aside and tells of each file."""
    from mmpt_bench.records.repair import repair
    from mmpt_bench.records.store import Store

    made = list(repair(Store(out)))
    for done in made:
        lines = f"line{'s' if len(done.lines) > 1 else ''} {', '.join(map(str, done.lines))}"
        told = f"{lines} set aside in `{done.aside.name}`, the file as it was is `{done.copy.name}`"
        echo(f"repaired `{done.path}`: {told}. The next `run` evaluates what is missing.", err=True)
    if not made:
        echo(f"Nothing to repair in `{out}`.", err=True)


def findings(out: Path) -> Iterator[Finding]:
    """Yields a finding for each thing that a run needs."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(
        "Python", sys.version_info >= (3, 11), version, "" if sys.version_info >= (3, 11) else "Install 3.11 or newer."
    )
    import importlib.util

    for name, least in NEEDED.items():
        yield _package(name, least)
    if importlib.util.find_spec("torch"):
        yield _accelerator()
    yield Finding("cores", True, str(os.cpu_count()))
    yield _tried("embedded model", _embedded, "Install the package again: its weights are part of it.")
    yield _tried("results folder", lambda: _results(out))
    yield _locks(out)
    free = shutil.disk_usage(next(p for p in (out.resolve(), *out.resolve().parents) if p.exists())).free
    yield Finding(
        "free disk", free > 2**30, f"{free / 2**30:.1f} GiB", "" if free > 2**30 else "Runs want at least 1 GiB."
    )


SHARED = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "9p", "fuse")
"""File systems, by how their types begin, that other machines may hold too."""


def _locks(out: Path) -> Finding:
    """Returns whether two processes can hold one lock in the results folder: both would do a run, and mix its files."""
    from mmpt_bench.common.locks import excludes

    folder = next(each for each in (out.resolve(), *out.resolve().parents) if each.is_dir())
    kind = _file_system(folder)
    where = f"`{folder}`, {kind}" if kind else f"`{folder}`"
    helps = (
        "Give each process a results folder of its own with `--out`, and bring them together with `mmpt-bench merge`."
    )
    try:
        if not excludes(folder):
            return Finding("locks", False, f"two processes hold the same one in {where}", helps)
    except (BenchError, OSError) as error:
        return Finding("locks", False, f"{where}: {str(error).removesuffix('.')}", helps)
    if not kind.startswith(SHARED):
        return Finding("locks", True, f"keep a second process out in {where}")
    told = "on this machine; whether they do on two, a second one tells that runs the same command"
    return Finding("locks", True, f"keep a second process out in {where}, {told}")


def _file_system(folder: Path) -> str:
    """Returns the type of the file system that a folder is on; empty where the system does not tell."""
    import psutil

    mounts = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else ""


def _package(name: str, least: str) -> Finding:
    import importlib.metadata

    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", f"`pip install '{name}>={least}'`")

    def parts(text: str) -> tuple[int, ...]:
        return tuple(int(p) for p in text.split("+")[0].split(".")[:2] if p.isdigit())

    ok = parts(version) >= parts(least)
    return Finding(name, ok, version, "" if ok else f"`pip install '{name}>={least}'`")


def _accelerator() -> Finding:
    import torch

    if torch.cuda.is_available():
        name, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory / 2**30
        return Finding(
            "accelerator", True, f"{name}, {memory:.0f} GiB, bf16 {'yes' if torch.cuda.is_bf16_supported() else 'no'}"
        )
    return Finding("accelerator", True, "none: the embedded backbone runs on the processor, a 7B one does not")


def _tried(what: str, look: Callable[[], str], helps: str = "") -> Finding:
    try:
        return Finding(what, True, look())
    except UntrustedRecord as error:
        return Finding(what, False, str(error))
    except BenchError as error:
        return Finding(what, False, str(error).removesuffix(".") if helps else str(error), helps)


def _embedded() -> str:
    from mmpt_bench.sources.weights import backbone_fingerprint, backbone_folder, verify_folder

    verify_folder(backbone_folder("embedded"))
    return f"whole, fingerprint {backbone_fingerprint('embedded')[:12]}"


def _results(out: Path) -> str:
    from mmpt_bench.records.store import Store

    check_can_write(out)
    if not out.exists():
        return f"`{out}` is not there yet: the first run makes it"
    n = len(Store(out).records())
    return f"`{out}` can be written to, {n:,} record{'' if n == 1 else 's'}"
