"""A disk that fills up during an upload or a build, and a build that takes more of it than it may: running apps go on, nothing is left behind, and the publisher is told why."""
import os
import subprocess

import pytest
import requests
from test_deploy import Portal, call, deployed, manifest, new_content, package_of, packed, upload, with_key, wsgi

# In MiB: the disk, what uploads and builds leave free of it, what one build may write.
DISK, KEPT, BUILD = 640, 256, 150


@pytest.fixture(scope="module")
def portal(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disk")
    data = folder / "data"
    data.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}m,mode=700", "tmpfs", data]).returncode:
        pytest.skip("only root makes a small disk")
    portal = None
    try:
        portal = Portal(folder, VALETKEY_RUN_BUILD_MIB=str(BUILD), VALETKEY_RUN_MAX_UPLOAD_MIB="400")
        portal.item = new_content(portal, "kept")
        assert deployed(portal, portal.item["guid"], packed({"app.py": wsgi("before")}, manifest()))["code"] == 0
        yield portal
        portal.stop()
    finally:
        if portal and portal.process.poll() is None:
            portal.kill()
        subprocess.run(["umount", "--lazy", data], check=True)


@pytest.fixture
def nearly_full(portal):
    """Leaves 40 MiB more than what is kept free."""
    found = os.statvfs(portal.folder / "data")
    ballast = portal.folder / "data/ballast"
    ballast.write_bytes(bytes(found.f_bavail * found.f_frsize - (KEPT + 40 << 20)))
    yield
    ballast.unlink(missing_ok=True)


def writing(mib):
    """A bundle with a package whose build fills the disk with so much before it is done."""
    files = package_of("filling", f'open("filling", "wb").writelines(bytes(1 << 20) for _ in range({mib}))', "time.sleep(5)")
    return packed({"app.py": "import filling\n" + wsgi("after"), **files}, manifest(packages=True))


def goes_on(portal):
    assert with_key(portal, portal.item["content_url"], "ada").text == "before"
    data = portal.folder / "data/content"
    left = [path for name in (".incoming", ".builds", ".builds/store") for path in (data / name).glob("*") if path.name not in ("store", "cache", "compiled")]
    assert (data / ".incoming").is_dir() and (data / ".builds/store").is_dir()
    assert left == [], left
    health = requests.get(f"{portal['portal']}/__health__", timeout=10).json()
    assert health["disk"] in ("ok", "low") and health["writes"] == "ok", health


def test_a_build_writes_no_more_than_it_may(portal):
    done = deployed(portal, portal.item["guid"], writing(BUILD + 20))
    assert done["code"] == 1 and f"more than {BUILD} MiB" in done["error"] and "run_build_mib" in done["error"], done
    goes_on(portal)


def test_an_upload_leaves_room_for_the_portal(portal, nearly_full):
    bundles = call(portal, "GET", f"content/{portal.item['guid']}/bundles").json()
    refused = upload(portal, portal.item["guid"], packed({"app.py": wsgi("large"), "data.bin": os.urandom(100 << 20)}, manifest()))
    assert refused.status_code == 400 and "disk is full" in refused.json()["error"] and "upload again" in refused.json()["error"], refused.text
    assert call(portal, "GET", f"content/{portal.item['guid']}/bundles").json() == bundles
    goes_on(portal)


def test_unpacking_leaves_room_for_the_portal(portal, nearly_full):
    # Small as an archive.
    done = deployed(portal, portal.item["guid"], packed({"app.py": wsgi("large"), "zeros": bytes(60 << 20)}, manifest()))
    assert done["code"] == 1 and "disk is full" in done["error"] and "deploy again" in done["error"], done
    goes_on(portal)


def test_a_build_leaves_room_for_the_portal_and_works_when_there_is_room(portal, nearly_full):
    archive = writing(100)
    done = deployed(portal, portal.item["guid"], archive)
    assert done["code"] == 1 and "disk is full" in done["error"] and "deploy again" in done["error"], done
    goes_on(portal)
    (portal.folder / "data/ballast").unlink()
    done = deployed(portal, portal.item["guid"], archive)
    assert done["code"] == 0, done
    assert with_key(portal, portal.item["content_url"], "ada").text == "after"
