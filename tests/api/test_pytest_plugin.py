"""The fixtures that the package brings for other projects' tests."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]


def test_the_fixtures_are_there_without_an_import(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        def test_default(nvme_drive):
            drive = nvme_drive()
            assert (drive.namespaces[0].size, drive.namespaces[0].block_size) == (64 << 20, 512)

        @pytest.mark.nvmet_target(workers=2)
        @pytest.mark.nvme_drive("ram:16M", block_size=4096)
        def test_marked(nvme_drive):
            first, second = nvme_drive(), nvme_drive(block_size=512)
            assert first.namespaces[0].size == second.namespaces[0].size == 16 << 20
            assert [one.namespaces[0].block_size for one in (first, second)] == [4096, 512]
            assert first.identify_controller().serial != second.identify_controller().serial

        def test_own(nvmet_target, nvmet_directory):
            subsystem = nvmet_target.add_subsystem(serial="S1")
            subsystem.listen(nvmet_directory / "s")
            assert len(str(nvmet_directory)) < 60
        """
    )
    result = pytester.runpytest("--strict-markers", "-W", "error")
    result.assert_outcomes(passed=3)
    assert "nvme_drive(disk, **options)" in pytester.runpytest("--markers").stdout.str()


def test_a_test_fails_whose_target_does_not_shut_down_cleanly(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from nvmet_vdev import Backend

        class Forgetful(Backend):
            size = 1 << 20

            def read(self, offset, buf):
                buf[:] = bytes(len(buf))

            def write(self, offset, buf, fua):
                pass

            def flush(self):
                raise OSError(5, "no medium")

        def test_write(nvme_drive):
            drive = nvme_drive(Forgetful())
            drive.write(0, bytes(512))
            drive.close()
        """
    )
    result = pytester.runpytest()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*the target did not shut down cleanly: *"])


def test_a_test_fails_whose_drive_cannot_be_detached(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_target_first(nvmet_target, nvme_drive):
            nvme_drive()
            nvmet_target.shutdown()
        """
    )
    result = pytester.runpytest()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*a drive did not detach cleanly: *"])
