#!/usr/bin/env python3
"""Fetches the ONNX Runtime libraries that `lfm2-host` loads.

    python3 host/runtime/fetch.py [cpu|cuda|qnn] [--into FOLDER] [--platform NAME] [--optional]

`cpu`, which is the default, is ONNX Runtime itself, `cuda` the build of it for NVIDIA's GPUs, and `qnn` a plugin for
Qualcomm's NPUs with Qualcomm's libraries, which simulate an NPU on x86 processors.

pip downloads the official wheel of one pinned version. The wheel's SHA-256 is compared with the tables below, and only
the shared libraries and the licence texts are taken out of it, into FOLDER/onnxruntime, FOLDER/onnxruntime-cuda or
FOLDER/onnxruntime-qnn (FOLDER is `.runtime` at the top of the repository unless given, and has to be given for another
platform than this one). A second call finds the result and does nothing. With --optional, a package that does not exist
for this machine is no failure; why it does not exist is told.

Needs Python 3.8 or newer and pip, and installs nothing into Python.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
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
BUILD_IT = "Build or install ONNX Runtime 1.24 or newer yourself and set ORT_DYLIB_PATH to its library."


class Wheel(NamedTuple):
    """One file of a package on the Python package index."""

    tag: str
    """Platform tag, as pip spells it."""
    sha256: str
    """Of the wheel file."""
    libraries: Tuple[str, ...]
    """Members to take out, by their path in the wheel."""


class Package(NamedTuple):
    """A pinned package and its wheels."""

    name: str
    version: str
    folder: str
    """Name of the folder that the libraries go into."""
    licences: Tuple[str, ...]
    """Licence texts and notices, by their path in every wheel."""
    notice: str
    """What those who fetch it should know about its licences."""
    otherwise: str
    """What to do where there is no wheel."""
    wheels: Dict[str, Wheel]
    """By platform, as `this_platform` names it."""


# The wheels are those for CPython 3.12, whatever Python runs this: the libraries in them do not depend on Python.
PYTHON = ("--python-version", "3.12", "--implementation", "cp", "--abi", "cp312")

MICROSOFT_LICENCES = ("onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt", "onnxruntime/Privacy.md")

ONNX_RUNTIME = Package(
    name="onnxruntime",
    version="1.32.0",
    folder="onnxruntime",
    licences=MICROSOFT_LICENCES,
    notice="ONNX Runtime has the MIT licence; its text and those of the parts by others lie beside the library.",
    otherwise=BUILD_IT,
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


# The last version with wheels. It needs the libraries of CUDA 13, and cuDNN 9 where a graph has operators for it.
ONNX_RUNTIME_CUDA = Package(
    name="onnxruntime-gpu",
    version="1.31.1",
    folder="onnxruntime-cuda",
    licences=MICROSOFT_LICENCES,
    notice=(
        "ONNX Runtime has the MIT licence; its text and those of the parts by others lie beside the library. It needs NVIDIA's driver, CUDA 13 "
        "and cuDNN 9, which are not fetched: they have licences of their own."
    ),
    otherwise=BUILD_IT,
    wheels={
        "linux-x86_64": Wheel(
            tag="manylinux_2_28_x86_64",
            sha256="05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7",
            libraries=(
                "onnxruntime/capi/libonnxruntime.so.1.31.1",
                "onnxruntime/capi/libonnxruntime_providers_shared.so",
                "onnxruntime/capi/libonnxruntime_providers_cuda.so",
            ),
        ),
        "linux-aarch64": Wheel(
            tag="manylinux_2_34_aarch64",
            sha256="a0f1725c5a6d1ef82d63498b5ebc25e2c90c9560e91dc76db9be4a49162d4d33",
            libraries=(
                "onnxruntime/capi/libonnxruntime.so.1.31.1",
                "onnxruntime/capi/libonnxruntime_providers_shared.so",
                "onnxruntime/capi/libonnxruntime_providers_cuda.so",
            ),
        ),
        "windows-x86_64": Wheel(
            tag="win_amd64",
            sha256="2bb1e9373baba88f6415257f5b6a589d23e23c16004f7d89adf4344eada5749e",
            libraries=(
                "onnxruntime/capi/onnxruntime.dll",
                "onnxruntime/capi/onnxruntime_providers_shared.dll",
                "onnxruntime/capi/onnxruntime_providers_cuda.dll",
            ),
        ),
    },
)

# Libraries that run on the NPU itself, by the generation of the NPU, and those that talk to them.
QNN_ON_LINUX = tuple(f"onnxruntime_qnn/libQnnHtpV{generation}{part}.so" for generation in (68, 69, 73, 75, 79, 81) for part in ("Skel", "Stub"))
QNN_ON_WINDOWS = tuple(
    name
    for generation in (68, 73, 81)
    for name in (f"onnxruntime_qnn/libQnnHtpV{generation}Skel.so", f"onnxruntime_qnn/QnnHtpV{generation}Stub.dll")
) + ("onnxruntime_qnn/libqnnhtpv73.cat", "onnxruntime_qnn/libqnnhtpv81.cat")

# A plugin for the library above. Qualcomm's libraries for x86 processors simulate the NPU.
QNN = Package(
    name="onnxruntime-qnn",
    version="2.7.0",
    folder="onnxruntime-qnn",
    licences=(
        "onnxruntime_qnn/LICENSE",
        "onnxruntime_qnn/ThirdPartyNotices.txt",
        "onnxruntime_qnn/Privacy.md",
        "onnxruntime_qnn/Qualcomm_LICENSE.pdf",
    ),
    notice=(
        "The plugin has the MIT licence. The libraries beside it belong to Qualcomm: Qualcomm_LICENSE.pdf in the folder says what you may do "
        "with them. They may be passed on only as part of a program, and must not be committed anywhere."
    ),
    otherwise="Without it, everything but --ep qnn works.",
    wheels={
        "linux-x86_64": Wheel(
            tag="manylinux_2_35_x86_64",
            sha256="6feb735e2910127febd9c24c1be0f541bcaf688a90028b7efe55d12aca214c13",
            libraries=(
                "onnxruntime_qnn/libonnxruntime_providers_qnn.so",
                "onnxruntime_qnn/libQnnHtp.so",
                "onnxruntime_qnn/libQnnSystem.so",
                # In the wheel they lie in a folder beside the other libraries, which look for them in their own folder first.
                "onnxruntime_qnn.libs/libc++-71bc274c.so.1.0",
                "onnxruntime_qnn.libs/libc++abi-0539aa51.so.1.0",
                "onnxruntime_qnn.libs/libunwind-6b740a46.so.1.0",
            ),
        ),
        "linux-aarch64": Wheel(
            tag="manylinux_2_34_aarch64",
            sha256="40f6f8ab76a877b36c875122caf46189f810e52a1e7c2f75e431dfb7714168b8",
            libraries=(
                "onnxruntime_qnn/libonnxruntime_providers_qnn.so",
                "onnxruntime_qnn/libQnnHtp.so",
                "onnxruntime_qnn/libQnnHtpPrepare.so",
                "onnxruntime_qnn/libQnnSystem.so",
                *QNN_ON_LINUX,
            ),
        ),
        "windows-x86_64": Wheel(
            tag="win_amd64",
            sha256="83e0f18fc0233b911a78536da4d089eb66086a9d843f6046cf7a88daa4c1432c",
            libraries=(
                "onnxruntime_qnn/libs/amd64/onnxruntime_providers_qnn.dll",
                "onnxruntime_qnn/libs/amd64/QnnHtp.dll",
                "onnxruntime_qnn/libs/amd64/QnnSystem.dll",
            ),
        ),
        "windows-arm64": Wheel(
            tag="win_arm64",
            sha256="04dff4e75d4046a29fd8d90602c0cb3d130bb3c82c58e280c600c6c234a11c84",
            libraries=(
                "onnxruntime_qnn/onnxruntime_providers_qnn.dll",
                "onnxruntime_qnn/QnnHtp.dll",
                "onnxruntime_qnn/QnnHtpPrepare.dll",
                "onnxruntime_qnn/QnnSystem.dll",
                *QNN_ON_WINDOWS,
            ),
        ),
    },
)

PACKAGES = {"cpu": ONNX_RUNTIME, "cuda": ONNX_RUNTIME_CUDA, "qnn": QNN}


class FetchError(Exception):
    """What went wrong and what to do, in one message."""


class NoWheelError(FetchError):
    """There is no build of the package that this machine could load."""


def main(arguments: list[str] | None = None) -> int:
    """Fetches what the command line asks for. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Fetches the ONNX Runtime libraries that lfm2-host loads.")
    parser.add_argument("package", nargs="?", choices=sorted(PACKAGES), default="cpu", help="what to fetch (default: cpu, ONNX Runtime itself)")
    parser.add_argument("--into", type=Path, help="folder to fill (default: .runtime)")
    parser.add_argument("--platform", choices=sorted(ONNX_RUNTIME.wheels), help="fetch for another platform than this one; needs --into")
    parser.add_argument("--optional", action="store_true", help="do without, and say why, where the package does not exist")
    options = parser.parse_args(arguments)
    try:
        into = destination(options.into, options.platform)
        fetch(PACKAGES[options.package], options.platform or this_platform(), into)
    except NoWheelError as error:
        say(f"going on without: {error}" if options.optional else f"error: {error}")
        return 0 if options.optional else 1
    except (FetchError, OSError) as error:
        say(f"error: {error}")
        return 1
    return 0


def destination(into: Path | None, platform_name: str | None) -> Path:
    """The folder to fill. A library of another platform must not replace the one that this machine loads."""
    if into is not None:
        return into
    if platform_name is not None and platform_name != this_platform():
        raise FetchError(f"--platform {platform_name} is not this machine: name a folder for its library with --into")
    return DEFAULT_FOLDER


def fetch(package: Package, platform_name: str, into: Path) -> Path:
    """Makes sure that the libraries of `package` lie in `into`, and returns their folder."""
    wheel = package.wheels.get(platform_name)
    if wheel is None:
        known = ", ".join(package.wheels)
        raise NoWheelError(f"there is no {package.name} {package.version} for {platform_name}, only for {known}. {package.otherwise}")
    if platform_name == this_platform():
        require_glibc(package, wheel)
    folder = into / package.folder
    if is_complete(folder, wheel):
        say(f"{package.name} {package.version} is in {folder} already")
        return folder
    say(package.notice)
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=into) as temporary:
        file = download(package, wheel, Path(temporary))
        check(package, file, wheel)
        unpacked = Path(temporary) / "unpacked"
        unpack(package, file, wheel, unpacked)
        replace(folder, unpacked, Path(temporary) / "replaced")
    say(f"{package.name} {package.version} is in {folder}")
    return folder


def this_platform() -> str:
    """Name of the running system and processor, as in the tables."""
    system = {"Darwin": "macos"}.get(platform.system(), platform.system().lower())
    machine = platform.machine().lower()
    if machine in ("amd64", "x64"):
        machine = "x86_64"
    elif machine in ("arm64", "aarch64"):
        machine = "aarch64" if system == "linux" else "arm64"
    return f"{system}-{machine}"


def require_glibc(package: Package, wheel: Wheel) -> None:
    """Refuses Linux systems whose C library cannot load the wheel's libraries, such as Alpine. Its tag says what they need."""
    tag = re.match(r"manylinux_(\d+)_(\d+)_", wheel.tag)
    if tag is None:
        return
    needed = (int(tag[1]), int(tag[2]))
    try:
        found = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        found = ""
    name, _, version = found.partition(" ")
    if name != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < needed:
        raise NoWheelError(
            f"the official build of {package.name} {package.version} needs glibc {needed[0]}.{needed[1]} or newer, and this system has "
            f"{found or 'another C library'}. {package.otherwise}"
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
            f"{sys.executable} has no pip. Install it (`python3 -m ensurepip`, or the package python3-pip of your system). "
            f"Otherwise: {package.otherwise}"
        )
    if subprocess.run([*command, "--dest", str(into)], stdout=sys.stderr).returncode != 0:
        raise FetchError(
            f"pip could not download {requirement}; its messages are above. Is the network up, and does pip reach a package "
            f"index (`pip config list` shows which)? Otherwise: {package.otherwise}"
        )
    files = sorted(into.glob("*.whl"))
    if len(files) != 1:
        raise FetchError(f"pip left {len(files)} wheels where one was expected: {[file.name for file in files]}")
    return files[0]


def check(package: Package, file: Path, wheel: Wheel) -> None:
    """Compares the file's SHA-256 with the table."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        for chunk in iter(lambda: stream.read(1 << 20), b""):
            digest.update(chunk)
    if digest.hexdigest() != wheel.sha256:
        raise FetchError(
            f"{file.name} has SHA-256 {digest.hexdigest()}, expected {wheel.sha256}. It was damaged on the way or is not the "
            f"official wheel: empty pip's cache (`pip cache remove {package.name}`), check which index pip uses, and try again."
        )


def unpack(package: Package, file: Path, wheel: Wheel, folder: Path) -> None:
    """Takes the libraries and licences out of the wheel into the new folder, and adds the stamp."""
    folder.mkdir()
    sizes = {}
    with zipfile.ZipFile(file) as archive:
        for member in (*wheel.libraries, *package.licences):
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
