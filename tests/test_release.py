"""What a release writes and checks, without building one: versions, changelog, contents; and the files around it."""

import re
import tarfile
import tomllib
import zipfile

import pytest
import yaml

import mg_diffusion
from tools import release
from tools.versions import links, released, version_of, with_version


CODE = '"""A package."""\n\n__version__ = "0.1.0"\n'
CHANGES = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A thing.\n\n[Unreleased]: https://forge/x/commits/main\n"


def test_the_version_is_in_one_place(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"] and "version" not in project["project"]
    assert (
        version_of((repository / "mg_diffusion" / "__init__.py").read_text(encoding="utf-8"))
        == mg_diffusion.__version__
    )


def test_a_version_is_set_and_only_goes_up():
    assert version_of(with_version(CODE, "0.2.0rc1")) == "0.2.0rc1"
    assert with_version(CODE, "0.1.0") == CODE
    for version, message in (("0.0.9", "comes before"), ("0.1.0rc1", "comes before"), ("next", "is like 1.2.3")):
        with pytest.raises(ValueError, match=message):
            with_version(CODE, version)


def test_the_changelog_gets_a_section_and_links():
    first = released(CHANGES, "0.1.0", "2026-01-02", "https://forge/x")
    assert "## [Unreleased]\n\n## [0.1.0] - 2026-01-02\n\n### Added\n\n- A thing.\n" in first
    assert first.endswith(
        "[Unreleased]: https://forge/x/compare/v0.1.0...HEAD\n[0.1.0]: https://forge/x/releases/tag/v0.1.0\n"
    )
    for again in ("0.1.0", "0.2.0"):
        with pytest.raises(ValueError, match="already" if again == "0.1.0" else "says what changed"):
            released(first, again, "2026-02-03", "https://forge/x")
    more = first.replace("## [Unreleased]\n", "## [Unreleased]\n\n### Fixed\n\n- Another.\n")
    second = released(more, "0.2.0", "2026-02-03", "https://forge/x")
    assert second.count("[Unreleased]:") == 1 and "[0.2.0]: https://forge/x/compare/v0.1.0...v0.2.0\n" in second
    assert links(["0.2.0", "0.1.0"], "https://forge/x") == second[second.index("[Unreleased]:") :]


def test_nothing_is_written_if_either_cannot_be(tmp_path, repository):
    (tmp_path / "mg_diffusion").mkdir()
    (tmp_path / "mg_diffusion" / "__init__.py").write_text(CODE)
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n")
    (tmp_path / "pyproject.toml").write_text((repository / "pyproject.toml").read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match="says what changed"):
        release.prepare("0.2.0", tmp_path)
    assert (tmp_path / "mg_diffusion" / "__init__.py").read_text() == CODE
    (tmp_path / "CHANGELOG.md").write_text(CHANGES)
    release.prepare("0.2.0", tmp_path, "2026-02-03")
    assert version_of((tmp_path / "mg_diffusion" / "__init__.py").read_text()) == "0.2.0"
    assert "## [0.2.0] - 2026-02-03" in (tmp_path / "CHANGELOG.md").read_text()


def test_archives_hold_the_package_and_nothing_else(tmp_path):
    def wheel(*more: str):
        path = tmp_path / "x-1-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("py.typed", "embedded/model_index.json", "embedded/unet/config.json"):
                archive.writestr(f"mg_diffusion/{name}", "")
            for name in more:
                archive.writestr(name, "")
        return path

    assert release.check_content(wheel()) == "x-1-py3-none-any.whl: 3 files, 0.0 MB"
    for foreign in ("tests/test_a.py", "mg_diffusion/__pycache__/a.pyc", "benchmarks/a.json"):
        with pytest.raises(ValueError, match="the package alone"):
            release.check_content(wheel(foreign))
    with tarfile.open(tmp_path / "x-1.tar.gz", "w:gz"):
        pass
    with pytest.raises(ValueError, match=r"must hold mg_diffusion/py\.typed"):
        release.check_content(tmp_path / "x-1.tar.gz")


# -- the files around it ----------------------------------------------------------------------------------------------
def test_one_address_of_the_repository(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project["urls"]["Repository"]
    assert f"[Unreleased]: {address}/" in (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    assert yaml.safe_load((repository / "CITATION.cff").read_text(encoding="utf-8"))["repository-code"] == address
    for name in ("SECURITY.md", ".github/ISSUE_TEMPLATE/config.yml"):
        assert f"{address}/security/advisories/new" in (repository / name).read_text(encoding="utf-8")


def test_workflows_run_what_the_makefile_has_on_the_claimed_versions(repository):
    workflows = {
        path.stem: path.read_text(encoding="utf-8") for path in (repository / ".github/workflows").glob("*.yml")
    }
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    for text in workflows.values():
        assert yaml.safe_load(text)["jobs"]
        for target in re.findall(r"run: make (\w+)", text):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    claimed = {one.rpartition(" ")[2] for one in project["classifiers"] if re.search(r":: 3\.\d+$", one)}
    tested = yaml.safe_load(workflows["ci"])["jobs"]["tests"]["strategy"]["matrix"]["python-version"]
    assert claimed == set(tested)
    assert yaml.safe_load(workflows["publish"])["jobs"]["publish"]["permissions"] == {"id-token": "write"}


def test_templates_and_citation_can_be_read(repository):
    for path in (repository / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert path.stem == "config" or {"name", "description", "body"} <= set(form)
    citation = yaml.safe_load((repository / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_the_container_needs_no_rights(repository):
    lines = (repository / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert "USER page" in lines and any(line.startswith("HEALTHCHECK") for line in lines)
    assert lines.index("USER page") < next(i for i, line in enumerate(lines) if line.startswith("CMD"))
    copied = {name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]}
    kept = (repository / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{name}" for name in copied} <= set(kept) and all((repository / name).exists() for name in copied)
