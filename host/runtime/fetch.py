#!/usr/bin/env python3
"""Fetches the ONNX Runtime library that `lfm2-host` loads.

    python3 host/runtime/fetch.py [--into FOLDER] [--platform NAME]

pip downloads the official wheel of one pinned version. The wheel's SHA-256 is compared with the table below, and only
the shared libraries and the licence texts are taken out of it, into FOLDER/onnxruntime (FOLDER is `.runtime` at the top
of the repository unless given, and has to be given for another platform than this one). A second call finds the result and does nothing.

Needs Python 3.8 or newer and pip, and installs nothing into Python.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Dict, NamedTuple, Tuple

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_FOLDER = REPOSITORY / ".runtime"
STAMP = "stamp.json"
LICENCES = ("onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt", "onnxruntime/Privacy.md")


class Wheel(NamedTuple):
    """One file of a package on the Python package index."""

    tag: str
    """Platform tag, as pip spells it."""
    sha256: str
    """Of the wheel file."""
    libraries: Tuple[str, ...]
    """Members to take out, by their path in the wheel."""


class Package(NamedTuple):
    """A pinned package and its wheels. Each goes into a folder of its own name."""

    name: str
    version: str
    wheels: Dict[str, Wheel]
    """By platform, as `this_platform` names it."""


# The wheels are those for CPython 3.12, whatever Python runs this: the libraries in them do not depend on Python.
PYTHON = ("--python-version", "3.12", "--implementation", "cp", "--abi", "cp312")

ONNX_RUNTIME = Package(
    name="onnxruntime",
    version="1.32.0",
    wheels={
        "linux-x86_64": Wheel(
            tag="manylinux_2_28_x86_64",
            sha256="99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8",
            libraries=("onnxruntime/capi/libonnxruntime.so.1.32.0", "onnxruntime/capi/libonnxruntime_providers_shared.so"),
        ),
        "linux-aarch64": Wheel(
            tag="manylinux_2_28_aarch64",
            sha256="e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054",
            libraries=("onnxruntime/capi/libonnxruntime.so.1.32.0", "onnxruntime/capi/libonnxruntime_providers_shared.so"),
        ),
        "macos-arm64": Wheel(
            tag="macosx_14_0_arm64",
            sha256="d52510bbbcc880c13b826f7d75cdf33ac5cf0bb864d960000fc29ce73f0cb83e",
            libraries=("onnxruntime/capi/libonnxruntime.1.32.0.dylib",),
        ),
        "windows-x86_64": Wheel(
            tag="win_amd64",
            sha256="efe7456952c243a05a53d5b8732953625144642c2f3989094277f6217f0c0c40",
            libraries=("onnxruntime/capi/onnxruntime.dll", "onnxruntime/capi/onnxruntime_providers_shared.dll"),
        ),
        "windows-arm64": Wheel(
            tag="win_arm64",
            sha256="64d394c69d561af3efd4d4f49dcac8f11d0ce135a20701c16d53b74056cd4cf8",
            libraries=("onnxruntime/capi/onnxruntime.dll", "onnxruntime/capi/onnxruntime_providers_shared.dll"),
        ),
    },
)


class FetchError(Exception):
    """What went wrong and what to do, in one message."""


def main(arguments: list[str] | None = None) -> int:
    """Fetches what the command line asks for. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Fetches the ONNX Runtime library that lfm2-host loads.")
    parser.add_argument("--into", type=Path, help="folder to fill (default: .runtime)")
    parser.add_argument("--platform", choices=sorted(ONNX_RUNTIME.wheels), help="fetch for another platform than this one; needs --into")
    options = parser.parse_args(arguments)
    try:
        fetch(ONNX_RUNTIME, options.platform or this_platform(), destination(options.into, options.platform))
    except (FetchError, OSError) as error:
        say(f"error: {error}")
        return 1
    return 0


def destination(into: Path | None, platform_name: str | None) -> Path:
    """The folder to fill. A library of another platform must not replace the one that this machine loads."""
    if into is not None:
        return into
    if platform_name is not None and not is_this_platform(platform_name):
        raise FetchError(f"--platform {platform_name} is not this machine: name a folder for its library with --into")
    return DEFAULT_FOLDER


def is_this_platform(platform_name: str) -> bool:
    """Whether this machine is `platform_name`. Machines without an official build are none of those in the table."""
    try:
        return this_platform() == platform_name
    except FetchError:
        return False


def fetch(package: Package, platform_name: str, into: Path) -> Path:
    """Makes sure that the libraries of `package` lie in `into`, and returns their folder."""
    wheel = package.wheels.get(platform_name)
    if wheel is None:
        raise FetchError(
            f"there is no {package.name} {package.version} for {platform_name}, only for {', '.join(package.wheels)}. "
            "Build or install ONNX Runtime 1.24 or newer yourself and set ORT_DYLIB_PATH to its library."
        )
    folder = into / package.name
    if is_complete(folder, wheel):
        say(f"{package.name} {package.version} is in {folder} already")
        return folder
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=into) as temporary:
        file = download(package, wheel, Path(temporary))
        check(file, wheel)
        unpacked = Path(temporary) / "unpacked"
        unpack(file, wheel, unpacked)
        replace(folder, unpacked, Path(temporary) / "replaced")
    say(f"{package.name} {package.version} is in {folder}")
    return folder


def this_platform() -> str:
    """Name of the running system and processor, as in the table."""
    system = {"Darwin": "macos"}.get(platform.system(), platform.system().lower())
    machine = platform.machine().lower()
    if system == "linux":
        require_glibc()
    if machine in ("amd64", "x64"):
        machine = "x86_64"
    elif machine in ("arm64", "aarch64"):
        machine = "aarch64" if system == "linux" else "arm64"
    return f"{system}-{machine}"


def require_glibc() -> None:
    """Refuses Linux systems whose C library cannot load the official build, such as Alpine."""
    try:
        found = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        found = ""
    name, _, version = found.partition(" ")
    if name != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < (2, 28):
        raise FetchError(
            f"the official builds of ONNX Runtime need glibc 2.28 or newer, and this system has {found or 'another C library'}. "
            "Build or install ONNX Runtime 1.24 or newer yourself and set ORT_DYLIB_PATH to its library."
        )


def is_complete(folder: Path, wheel: Wheel) -> bool:
    """Whether `folder` holds what an earlier call took out of `wheel`, untouched in size."""
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in stamp["sizes"]}
    except (OSError, ValueError, KeyError, TypeError):
        # No stamp, or a damaged one: fetching again repairs it.
        return False
    return stamp.get("wheel_sha256") == wheel.sha256 and stamp["sizes"] == sizes


def download(package: Package, wheel: Wheel, into: Path) -> Path:
    """Lets pip download the wheel into the folder `into`. pip's own messages go to stderr."""
    requirement = f"{package.name}=={package.version}"
    target = ("--platform", wheel.tag, *PYTHON)
    command = [sys.executable, "-m", "pip", "download", requirement, "--no-deps", "--only-binary=:all:", *target]
    say(" ".join(command))
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode != 0:
        raise FetchError(
            f"{sys.executable} has no pip. Install it (`python3 -m ensurepip`, or the package python3-pip of your system), "
            "or set ORT_DYLIB_PATH to an ONNX Runtime library that you have."
        )
    if subprocess.run([*command, "--dest", str(into)], stdout=sys.stderr).returncode != 0:
        raise FetchError(
            f"pip could not download {requirement}; its messages are above. Is the network up, and does pip reach a package "
            "index (`pip config list` shows which)? Without a network, set ORT_DYLIB_PATH to an ONNX Runtime library that you have."
        )
    files = sorted(into.glob("*.whl"))
    if len(files) != 1:
        raise FetchError(f"pip left {len(files)} wheels where one was expected: {[file.name for file in files]}")
    return files[0]


def check(file: Path, wheel: Wheel) -> None:
    """Compares the file's SHA-256 with the table."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        for chunk in iter(lambda: stream.read(1 << 20), b""):
            digest.update(chunk)
    if digest.hexdigest() != wheel.sha256:
        raise FetchError(
            f"{file.name} has SHA-256 {digest.hexdigest()}, expected {wheel.sha256}. It was damaged on the way or is not the "
            "official wheel: empty pip's cache (`pip cache remove onnxruntime`), check which index pip uses, and try again."
        )


def unpack(file: Path, wheel: Wheel, folder: Path) -> None:
    """Takes the libraries and licences out of the wheel into the new folder, and adds the stamp."""
    folder.mkdir()
    sizes = {}
    with zipfile.ZipFile(file) as archive:
        for member in (*wheel.libraries, *LICENCES):
            name = member.rsplit("/", 1)[1]
            try:
                with archive.open(member) as source, (folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
            except KeyError:
                raise FetchError(f"{file.name} does not hold {member}: the table in {Path(__file__).name} is wrong") from None
            sizes[name] = (folder / name).stat().st_size
    stamp = {"wheel": file.name, "wheel_sha256": wheel.sha256, "sizes": sizes}
    (folder / STAMP).write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")


def replace(folder: Path, new: Path, old: Path) -> None:
    """Moves `new` to `folder`; what was there goes to `old`. Nobody sees a folder that is half written."""
    try:
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except OSError as error:
        raise FetchError(f"cannot put the new files at {folder}: {error}. Stop the programs that use the old ones and try again.") from error


def say(message: str) -> None:
    """Reports progress."""
    print(f"runtime: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
