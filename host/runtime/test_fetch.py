"""Tests of fetch.py without a network: `python3 -m unittest discover -s host/runtime`."""

import contextlib
import hashlib
import io
import subprocess
import tempfile
import unittest
import zipfile
from pathlib import Path
from unittest import mock

import fetch

LIBRARY = "onnxruntime/capi/libonnxruntime.so.9.9.9"
LICENCES = fetch.ONNX_RUNTIME.licences


class FetchTest(unittest.TestCase):
    """Each test has a folder to fill and a wheel on disk, which a stand-in for pip copies."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.into = Path(temporary.name) / "runtime"
        self.wheel_file = Path(temporary.name) / "onnxruntime-9.9.9.whl"
        self.downloads = 0
        # Progress messages would clutter the output of the tests.
        silence = contextlib.redirect_stderr(io.StringIO())
        self.said = silence.__enter__()
        self.addCleanup(silence.__exit__, None, None, None)
        self.package = self.package_of(b"library, first build")

    def package_of(self, library, members=(LIBRARY, *LICENCES)):
        with zipfile.ZipFile(self.wheel_file, "w") as archive:
            for member in members:
                archive.writestr(member, library if member == LIBRARY else "licence")
            archive.writestr("onnxruntime/capi/other.py", "not wanted")
        digest = hashlib.sha256(self.wheel_file.read_bytes()).hexdigest()
        wheel = fetch.Wheel(tag="manylinux_2_28_x86_64", sha256=digest, libraries=(LIBRARY,))
        return fetch.Package(
            name="onnxruntime",
            version="9.9.9",
            folder="onnxruntime-here",
            licences=LICENCES,
            notice="Mind the licence.",
            otherwise="Do without.",
            wheels={"linux-x86_64": wheel},
        )

    def fetch(self, package=None, platform_name="linux-x86_64", pip_installed=True, network=True):
        def run(command, **_):
            if "--version" in command:
                return subprocess.CompletedProcess(command, 0 if pip_installed else 1)
            self.downloads += 1
            if not network:
                return subprocess.CompletedProcess(command, 1)
            destination = Path(command[command.index("--dest") + 1]) / self.wheel_file.name
            destination.write_bytes(self.wheel_file.read_bytes())
            return subprocess.CompletedProcess(command, 0)

        with mock.patch.object(fetch.subprocess, "run", run), mock.patch.object(fetch, "require_glibc"):
            return fetch.fetch(package or self.package, platform_name, self.into)

    def assert_nothing_left(self):
        self.assertEqual([path.name for path in self.into.iterdir()], [])

    def test_takes_out_libraries_and_licences_only(self):
        folder = self.fetch()
        names = sorted(path.name for path in folder.iterdir())
        self.assertEqual(names, ["LICENSE", "Privacy.md", "ThirdPartyNotices.txt", "libonnxruntime.so.9.9.9", "stamp.json"])
        self.assertEqual((folder / "libonnxruntime.so.9.9.9").read_bytes(), b"library, first build")
        self.assertEqual([path.name for path in self.into.iterdir()], ["onnxruntime-here"])

    def test_licences_are_mentioned_when_something_is_fetched(self):
        self.fetch()
        self.fetch()
        self.assertEqual(self.said.getvalue().count("Mind the licence."), 1)

    def test_second_call_downloads_nothing(self):
        self.fetch()
        self.fetch()
        self.assertEqual(self.downloads, 1)

    def test_damaged_result_is_fetched_again(self):
        for damage in ("libonnxruntime.so.9.9.9", "stamp.json"):
            with self.subTest(damage=damage):
                folder = self.fetch()
                (folder / damage).write_text("cut")
                self.fetch()
                self.assertEqual((folder / "libonnxruntime.so.9.9.9").read_bytes(), b"library, first build")

    def test_other_build_replaces_the_old_one(self):
        self.fetch()
        folder = self.fetch(self.package_of(b"library, second build"))
        self.assertEqual((folder / "libonnxruntime.so.9.9.9").read_bytes(), b"library, second build")

    def test_wrong_hash_is_refused_and_leaves_nothing(self):
        self.wheel_file.write_bytes(self.wheel_file.read_bytes() + b"x")
        with self.assertRaisesRegex(fetch.FetchError, "SHA-256"):
            self.fetch()
        self.assert_nothing_left()

    def test_wheel_without_the_library_is_refused(self):
        with self.assertRaisesRegex(fetch.FetchError, "does not hold " + LIBRARY):
            self.fetch(self.package_of(b"", members=LICENCES))
        self.assert_nothing_left()

    def test_missing_pip_and_network_say_what_to_do(self):
        with self.assertRaisesRegex(fetch.FetchError, "no pip.*ensurepip"):
            self.fetch(pip_installed=False)
        with self.assertRaisesRegex(fetch.FetchError, "Is the network up"):
            self.fetch(network=False)
        self.assert_nothing_left()

    def test_unknown_platform_lists_the_known_ones(self):
        with self.assertRaisesRegex(fetch.NoWheelError, "no onnxruntime 9.9.9 for plan9-mips, only for linux-x86_64. Do without."):
            self.fetch(platform_name="plan9-mips")


class PlatformTest(unittest.TestCase):
    def test_names_are_those_of_the_table(self):
        cases = {
            ("Linux", "x86_64"): "linux-x86_64",
            ("Linux", "aarch64"): "linux-aarch64",
            ("Linux", "arm64"): "linux-aarch64",
            ("Darwin", "arm64"): "macos-arm64",
            ("Windows", "AMD64"): "windows-x86_64",
            ("Windows", "ARM64"): "windows-arm64",
        }
        for (system, machine), name in cases.items():
            with self.subTest(system=system, machine=machine), mock.patch.multiple(
                fetch.platform, system=lambda: system, machine=lambda: machine
            ):
                self.assertEqual(fetch.this_platform(), name)
                self.assertIn(name, fetch.ONNX_RUNTIME.wheels)

    def test_c_library_is_checked(self):
        cases = (
            (fetch.ONNX_RUNTIME, "glibc 2.28", None),
            (fetch.ONNX_RUNTIME, "glibc 2.41", None),
            (fetch.ONNX_RUNTIME, "glibc 2.17", "glibc 2.28"),
            (fetch.ONNX_RUNTIME, None, "glibc 2.28"),
            (fetch.QNN, "glibc 2.28", "glibc 2.35"),
            (fetch.QNN, "glibc 2.36", None),
        )
        for package, found, refusal in cases:
            with self.subTest(package=package.name, found=found), mock.patch.object(fetch.os, "confstr", lambda _: found, create=True):
                wheel = package.wheels["linux-x86_64"]
                if refusal is None:
                    fetch.require_glibc(package, wheel)
                else:
                    self.assertRaisesRegex(fetch.NoWheelError, refusal, fetch.require_glibc, package, wheel)
                fetch.require_glibc(fetch.ONNX_RUNTIME, fetch.ONNX_RUNTIME.wheels["macos-arm64"])

    def test_wheels_are_pinned_and_nothing_is_written_over(self):
        folders = [package.folder for package in fetch.PACKAGES.values()]
        self.assertEqual(len(set(folders)), len(folders))
        for package in fetch.PACKAGES.values():
            for platform_name, wheel in package.wheels.items():
                with self.subTest(package=package.name, platform_name=platform_name):
                    self.assertRegex(wheel.sha256, "^[0-9a-f]{64}$")
                    names = [member.rsplit("/", 1)[1] for member in (*wheel.libraries, *package.licences)]
                    self.assertEqual(len(set(names)), len(names))

    def test_an_optional_package_may_not_exist(self):
        cases = (([], 1, "error: there is no"), (["--optional"], 0, "going on without: there is no"))
        for arguments, status, message in cases:
            with self.subTest(arguments=arguments), contextlib.redirect_stderr(io.StringIO()) as said:
                self.assertEqual(fetch.main(["qnn", "--platform", "macos-arm64", "--into", "there", *arguments]), status)
                self.assertIn(message, said.getvalue())

    def test_a_foreign_library_needs_a_folder_of_its_own(self):
        cases = (
            ([], "linux-x86_64", fetch.DEFAULT_FOLDER),
            (["--platform", "linux-x86_64"], "linux-x86_64", fetch.DEFAULT_FOLDER),
            (["cpu", "--platform", "macos-arm64", "--into", "there"], "macos-arm64", Path("there")),
            (["--platform", "macos-arm64"], None, None),
            (["qnn"], "linux-x86_64", fetch.DEFAULT_FOLDER),
        )
        for arguments, platform_name, folder in cases:
            with self.subTest(arguments=arguments), mock.patch.object(
                fetch, "this_platform", lambda: "linux-x86_64"
            ), mock.patch.object(fetch, "fetch") as fetched, contextlib.redirect_stderr(io.StringIO()) as said:
                status = fetch.main(arguments)
                if folder is None:
                    self.assertEqual((status, fetched.called), (1, False))
                    self.assertIn("--into", said.getvalue())
                else:
                    package = fetch.QNN if "qnn" in arguments else fetch.ONNX_RUNTIME
                    fetched.assert_called_once_with(package, platform_name, folder)


if __name__ == "__main__":
    unittest.main()
