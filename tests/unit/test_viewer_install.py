"""The viewer's package: fetched through npm, checked, moved below ``/viewer``, served with a policy that fits it."""

from __future__ import annotations

import io
import stat
import tarfile
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from wetread.commands import viewer as package
from wetread.worklist.viewer import router

INDEX = (
    '<html><head><script>window.PUBLIC_URL="/"</script><link href="/app.bundle.css">'
    '<script rel="preload" type="module" src="/init-service-worker.js"></script>'
    '<script defer src="/app.bundle.0123456789abcdef.js"></script></head></html>'
)
FILES = {
    "package/dist/index.html": INDEX,
    "package/dist/app.bundle.0123456789abcdef.js": '__webpack_require__.p = "/";' + "x" * 5000,
    "package/dist/app.bundle.css": "@font-face{src:url(/a.woff2)}",
    "package/dist/sw.js": "importScripts('elsewhere')",
    "package/dist/init-service-worker.js": "register",
    "package/package.json": "{}",
}


def archive(folder: Path, files: dict[str, str]) -> Path:
    path = folder / "ohif-app.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    folder = tmp_path / "viewer"
    package.unpack(archive(tmp_path, FILES), folder)
    return folder


@pytest.fixture
def client(installed: Path) -> TestClient:
    app = FastAPI()
    app.include_router(router(installed))
    return TestClient(app, raise_server_exceptions=False)


def test_the_package_is_moved_below_viewer_without_its_service_worker(installed: Path) -> None:
    index = (installed / "index.html").read_text()
    assert 'window.PUBLIC_URL="/viewer/"' in index
    assert 'src="/viewer/app.bundle.0123456789abcdef.js"' in index
    assert "service-worker" not in index
    assert (installed / "app.bundle.0123456789abcdef.js").read_text().startswith('__webpack_require__.p = "/viewer/"')
    assert (installed / "app.bundle.css").read_text() == "@font-face{src:url(/viewer/a.woff2)}"
    assert not (installed / "sw.js").exists()
    assert not (installed / "package.json").exists()


def test_a_package_built_otherwise_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "viewer"
    with pytest.raises(package.ViewerInstallError, match="not built as expected"):
        package.unpack(archive(tmp_path, {"package/dist/index.html": "<html></html>"}), folder)
    assert not folder.exists()
    assert not list(tmp_path.glob(".viewer-*"))


def test_another_archive_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(package.ViewerInstallError, match="not the one"):
        package.check(archive(tmp_path, FILES))


def test_without_npm_it_says_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert package.run_install(tmp_path / "viewer") == 2
    assert "npm is needed" in capsys.readouterr().err


def test_a_registry_that_does_not_answer_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'ETIMEDOUT' >&2\nexit 1\n")
    npm.chmod(npm.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert package.run_install(tmp_path / "viewer") == 2
    assert "ETIMEDOUT" in capsys.readouterr().err


def test_every_page_of_the_viewer_is_its_index_under_a_policy(client: TestClient) -> None:
    for path in ("/viewer/", "/viewer/viewer?StudyInstanceUIDs=1.2.3"):
        answer = client.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "'sha256-" in policy
        assert answer.headers["cache-control"] == "no-store"


def test_its_configuration_is_ours(client: TestClient) -> None:
    answer = client.get("/viewer/app-config.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "/dicom-web" in answer.text


def test_large_files_travel_compressed_and_stay_in_caches(client: TestClient) -> None:
    name = "/viewer/app.bundle.0123456789abcdef.js"
    packed = client.get(name, headers={"Accept-Encoding": "gzip"})
    plain = client.get(name, headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < 200
    assert packed.content == plain.content
    assert "31536000" in plain.headers["cache-control"]


@pytest.mark.parametrize("path", ["/viewer/../../secret.js", "/viewer/%2e%2e/ohif-app.tgz", "/viewer/none.js"])
def test_nothing_outside_the_folder_is_served(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code >= 400 or "window.PUBLIC_URL" in answer.text


def test_without_the_package_the_page_says_how_to_get_it(tmp_path: Path) -> None:
    app = FastAPI()
    app.include_router(router(tmp_path / "nothing"))
    answer = TestClient(app).get("/viewer/viewer")
    assert answer.status_code == 404
    assert "make viewer" in answer.text
    assert "Research use only" in answer.text
