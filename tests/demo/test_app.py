"""The page as a service: named endpoints by gradio_client, errors in words, nothing of the server readable."""

import concurrent.futures
import re
import time
from pathlib import Path

import httpx
import PIL.Image
import pytest

from demo.edits import mask_file
from mg_diffusion.recipe import read_recipe


gradio_client = pytest.importorskip("gradio_client", reason="the page needs the extra `demo`")
handle_file = gradio_client.handle_file


@pytest.fixture(scope="module")
def client(served, tmp_path_factory):
    return gradio_client.Client(served, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


@pytest.fixture
def references(uploads_folder) -> dict:
    """References as a client gives them."""
    return {
        "color_palette": "#023047, #219ebc:2, #8ecae6",
        "texture_picture": handle_file(uploads_folder / "weave.png"),
        "shape_picture": handle_file(uploads_folder / "leaf.png"),
        "steps": 3,
        "size": "64",
        "aspect": "1:1",
    }


def test_endpoints_have_names_and_documentation(client, repository):
    names = set(client.view_api(return_format="dict")["named_endpoints"])
    assert names == {"/generate", "/compose", "/edit", "/sweep", "/explain", "/make_card", "/mix"}
    page = (repository / "docs/demo.md").read_text(encoding="utf-8")
    (listed,) = [line for line in page.splitlines() if line.startswith("Endpoints: ")]
    assert set(re.findall("`(/[a-z_]+)`", listed)) == names


def test_generate(client, references):
    gallery, files = client.predict(**references, seed=4, count=2, api_name="/generate")
    assert [Path(file).name for file in files] == ["seed-4.png", "seed-5.png"] and len(gallery) == 2
    assert read_recipe(files[0])["seed"] == 4
    with PIL.Image.open(files[0]) as image:
        assert image.size == (64, 64)


def test_compose(client, references):
    shown, file = client.predict(**references, seed=4, api_name="/compose")
    assert read_recipe(file)["command"] == "demo.compose"
    with PIL.Image.open(shown) as image:
        assert image.size == (64, 64)


def test_edit_by_a_mask_from_a_file(client, references, uploads_folder, tmp_path):
    mask = PIL.Image.new("L", (256, 256))
    mask.paste(255, (80, 130, 180, 220))
    (tmp_path / "mask.png").write_bytes(mask_file(mask))
    more = {"photo": handle_file(uploads_folder / "scene.png"), "mask": handle_file(tmp_path / "mask.png")}
    compared, file, text = client.predict(**references, **more, action="repaint", api_name="/edit")
    assert "Pixels outside the mask that differ: 0." in text
    with PIL.Image.open(file) as made, PIL.Image.open(uploads_folder / "scene.png") as photo:
        assert made.size == (256, 256)
        assert made.tobytes() != photo.tobytes()
        black = PIL.Image.new("RGB", made.size)
        assert PIL.Image.composite(black, made, mask).tobytes() == PIL.Image.composite(black, photo, mask).tobytes()


def test_a_mask_that_is_not_read_is_told(client, references, uploads_folder, tmp_path):
    PIL.Image.new("L", (256, 256), 255).save(tmp_path / "mask.png")
    more = {"photo": handle_file(uploads_folder / "scene.png"), "mask": handle_file(tmp_path / "mask.png")}
    text = client.predict(**references, **more, action="variation", api_name="/edit")[2]
    assert text.endswith("Variation takes the whole picture; no mask is read.")


def test_sweep_and_explain(client, references):
    sheet, _, made = client.predict(**references, across="shape", columns=2, down="nothing", api_name="/sweep")
    assert len(made) == 2 and [entry["caption"] for entry in made] == ["shape 0", "shape 1.5"]
    picture, maps, table = client.predict(**references, api_name="/explain")
    assert "| to the shape reference |" in table
    assert all(Path(file).is_file() for file in (sheet, picture, maps))


def test_cards_are_made_used_and_mixed(client, references):
    card = client.predict(**references, granularity="texture", api_name="/make_card")
    assert Path(card).name == "texture.safetensors"
    used = {**references, "texture_picture": None, "texture_card": handle_file(card)}
    made = client.predict(**used, api_name="/generate")[1][0]
    assert "card" in read_recipe(made)["references"]["texture"][0]
    cards = {"first_card": handle_file(card), "second_card": handle_file(card)}
    assert read_recipe(client.predict(**references, **cards, granularity="texture", share=0.3, api_name="/mix")[2])[
        "mixed"
    ]


# -- what goes wrong --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 10**6}, "number of steps must be a number from 1 to 50"),
        ({"seed": -3}, "The seed must be a number"),
        ({"shape_scale": 99}, "strength of shape must be a number from 0 to 2"),
        ({"color_palette": "red"}, "is no color"),
        ({"prompt": "a" * 400}, "at most 300"),
        ({"model": "/etc"}, "There is no model of this name"),
        ({"model": ["mg-bazaar"]}, "There is no model of this name"),
        ({"prompt": ["a"]}, "at most 300"),
        ({"seed": {"a": 1}}, "The seed must be a number"),
    ],
)
def test_bad_values_are_told(client, references, changes, message):
    with pytest.raises(Exception, match=message) as told:
        client.predict(**{**references, **changes}, api_name="/generate")
    assert "Traceback" not in str(told.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\nbroken", b"<svg/>"])
def test_bad_files_are_told(client, references, tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    for slot, message in (("shape_picture", "cannot be read as a picture"), ("shape_card", "card cannot be read")):
        with pytest.raises(Exception, match=message) as told:
            client.predict(**{**references, slot: handle_file(tmp_path / "bad.png")}, api_name="/generate")
        assert "Traceback" not in str(told.value) and str(tmp_path) not in str(told.value)


def test_what_nobody_foresaw_is_not_shown(client, references, studio, monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("/secret/place")

    monkeypatch.setattr(studio, "generate", broken)
    with pytest.raises(Exception, match="Something went wrong on the server") as told:
        client.predict(**references, api_name="/generate")
    assert "secret" not in str(told.value)


def test_no_file_of_the_server_is_readable(served, client, references, repository):
    secret = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(Exception) as told:  # noqa: B017 (gradio's own error, without words)
        client.predict(**{**references, "shape_picture": secret}, api_name="/generate")
    assert "root:" not in str(told.value)
    for path in ("/etc/passwd", f"{repository}/README.md", f"{repository}/demo/app.py", "../../etc/passwd"):
        assert httpx.get(f"{served}/gradio_api/file={path}").status_code in (403, 404)


def test_links_of_gradio_that_would_keep_files_are_closed(served):
    assert httpx.get(f"{served}/gradio_api/deep_link?session_hash=x").status_code == 404


def test_a_port_that_is_taken_is_told(served, capsys):
    from demo.app import main

    with pytest.raises(SystemExit, match="error: .*empty port"):
        main(["--port", served.rpartition(":")[2]])


def test_uploads_are_removed_after_a_time(studio, monkeypatch, tmp_path):
    from demo import app

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(app, "CACHE_AGE", 1)
    monkeypatch.setattr(app, "CACHE_SWEEP", 1)
    page = app.Page(studio).build()
    _, url, _ = app.launch(page, prevent_thread_lock=True, quiet=True)
    try:
        (path,) = httpx.post(f"{url}gradio_api/upload", files={"files": ("a.png", b"hello")}).json()
        assert Path(path).is_relative_to(tmp_path)
        until = time.monotonic() + 30
        while Path(path).exists() and time.monotonic() < until:
            time.sleep(0.2)
        assert not Path(path).exists()
    finally:
        page.close(verbose=False)


def test_requests_that_are_too_large_are_refused(served):
    big = b"0" * (22 * 2**20)
    answer = httpx.post(f"{served}/gradio_api/upload", files={"files": ("a.png", big)})
    assert answer.status_code == 413

    def drops():
        for _ in range(22):
            yield b"0" * 2**20

    headers = {"content-type": "application/json"}
    try:
        assert httpx.post(f"{served}/gradio_api/queue/join", content=drops(), headers=headers).status_code >= 400
    except httpx.HTTPError:
        pass  # cut off
    assert httpx.get(served).status_code == 200


def test_painted_layers_are_bounded(served, client):
    from gradio.components.image_editor import ImageEditor

    config = httpx.get(f"{served}/config").json()
    (editor,) = [part["id"] for part in config["components"] if part["type"] == "imageeditor"]

    def send(**data):
        fields = {
            "component_id": str(editor),
            "session_hash": "me",
            "fn_name": "accept_blobs",
            "type": "layer",
            **data,
        }
        return httpx.post(f"{served}/gradio_api/component_server", data=fields, files={"file": ("blob", b"1234")})

    assert send(index="1000000000", id="a").status_code == 400
    for index in range(40):
        assert send(index="0", id=f"id-{index}").status_code == 200
    import gc

    kept = [one for one in gc.get_objects() if isinstance(one, ImageEditor)]
    assert max(len(one.blob_storage) for one in kept) <= 16


def test_the_page_answers_while_a_job_runs(served, client, references):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        job = pool.submit(client.predict, **{**references, "steps": 50}, api_name="/generate")
        taken = []
        while not job.done() and len(taken) < 20:
            time.sleep(0.2)
            start = time.perf_counter()
            assert httpx.get(served, timeout=30).status_code == 200
            taken.append(time.perf_counter() - start)
        job.result()
    print(
        f"page while a job runs: {sorted(taken)[len(taken) // 2]:.2f} s, {max(taken):.2f} s at most, of {len(taken)}"
    )
    assert len(taken) >= 3 and sorted(taken)[len(taken) // 2] < 1


def test_a_safety_check_holds_results_back(client, references, studio, monkeypatch):
    asked = []

    def check(images, prompt):
        asked.append((images[0].size, prompt))
        return [True]

    monkeypatch.setattr(studio, "check", check)
    with pytest.raises(Exception, match="held the result back"):
        client.predict(**references, prompt="a leaf", api_name="/generate")
    assert asked == [((64, 64), "a leaf")]
