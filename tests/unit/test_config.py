"""The configuration: found, read, refused by the key, and never printed with a password."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventmig.config import Config, find_config, load_object
from eventmig.errors import ConfigError
from eventmig.project import Project, public


def written(folder: Path, text: str, name: str = "eventmig.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def test_it_is_found_here_or_in_a_folder_above(tmp_path: Path) -> None:
    written(tmp_path, 'source = "sqlite:///a.db"\nbatch_size = 7')
    below = tmp_path / "x" / "y"
    below.mkdir(parents=True)
    found = find_config(None, below)
    assert found.folder == tmp_path
    assert (found.source, found.batch_size) == ("sqlite:///a.db", 7)


def test_a_pyproject_counts_where_it_has_the_table(tmp_path: Path) -> None:
    written(tmp_path, '[tool.eventmig]\nsource = "sqlite:///outer.db"', "pyproject.toml")
    written(tmp_path / "inner", "[tool.other]\nx = 1", "pyproject.toml")
    assert find_config(None, tmp_path / "inner").source == "sqlite:///outer.db"
    written(tmp_path / "inner", 'source = "sqlite:///inner.db"')
    assert find_config(None, tmp_path / "inner").source == "sqlite:///inner.db"


def test_without_one_there_are_the_defaults(tmp_path: Path) -> None:
    found = find_config(None, tmp_path)
    assert found == Config(folder=tmp_path)
    assert (found.naming, found.workers, found.batch_size) == ("{stream}", 1, 5_000)
    with pytest.raises(ConfigError, match="there is no source URL"):
        Project(found).url("source", None)


def test_a_named_one_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file here"):
        find_config(tmp_path / "other.toml", tmp_path)
    path = written(tmp_path, "workers = 2", "other.toml")
    assert find_config(path, Path("/")).workers == 2


def test_every_wrong_key_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, 'sorce = "x"\nbatch_size = -1\nxyz = 1')
    with pytest.raises(ConfigError) as caught:
        find_config(path, tmp_path)
    what = caught.value.what
    assert "did you mean source?" in what
    assert "batch_size: Input should be greater than 0" in what
    assert "xyz" in what
    assert str(path) in str(caught.value.where)
    path = written(tmp_path, "[throttle]\nshre = 0.5")
    with pytest.raises(ConfigError, match=r"unknown key throttle\.shre; did you mean share\?"):
        find_config(path, tmp_path)
    path = written(tmp_path, "[tool.eventmig]\nsource = 'x'")
    with pytest.raises(ConfigError, match=r"without \[tool\.eventmig\]"):
        find_config(path, tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = ", b"a = 1\na = 2"])
def test_what_is_no_toml_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "eventmig.toml").write_bytes(content)
    with pytest.raises(ConfigError, match="this is not TOML"):
        find_config(None, tmp_path)


def test_urls_are_relative_to_the_configuration(tmp_path: Path) -> None:
    config = Config(folder=tmp_path)
    assert config.url("sqlite:///a.db") == f"sqlite:///{tmp_path}/a.db"
    assert config.url("sqlite:////x/a.db") == "sqlite:////x/a.db"
    assert config.url("sqlite:///a.db?tables=v2_").endswith("a.db?tables=v2_")
    assert config.url("sqlite:///a-{release}.db", release="2").endswith("a-2.db")
    with pytest.raises(ConfigError, match="needs a release"):
        config.url("sqlite:///a-{release}.db")
    with pytest.raises(ConfigError, match="is not a URL") as caught:
        config.url("a.db")
    assert "sqlite:///a.db" in caught.value.remedy


@pytest.mark.parametrize(
    "url", ["postgresql://u:geheim@h:port/db", "u:geheim@h/db", "x//u:geheim@h", "://u:geheim@h"]
)
def test_an_unreadable_url_is_not_repeated(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(folder=tmp_path).url(url)
    assert "geheim" not in str(caught.value)


def test_a_path_that_is_no_utf8_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no UTF-8"):
        Config(folder=tmp_path).url("sqlite:///\udcff.db")


def test_passwords_are_hidden() -> None:
    assert public("postgresql://u:geheim@h/db") == "postgresql://u:***@h/db"


def test_a_mapping_takes_parts_by_name(tmp_path: Path) -> None:
    config = Config.model_validate({"folder": tmp_path, "import": {"stream": "cart-{id}"}})
    mapping = config.mapping({"type": "kind", "metadata": ""})
    assert mapping.stream == "cart-{id}"
    assert mapping.type == "kind"
    with pytest.raises(ConfigError, match="did you mean 'stream'"):
        config.mapping({"strem": "x"})


def test_a_lock_file_that_is_none_is_told(tmp_path: Path) -> None:
    from eventmig.errors import ReleaseError

    its = Project(Config(folder=tmp_path))
    assert its.lock.releases == ()
    with pytest.raises(ReleaseError, match="no release is frozen yet"):
        its.release()
    for content in (b"", b"\xff", b"{}", b"[]", b'{"format": "x"}'):
        (tmp_path / "eventmig.lock").write_bytes(content)
        with pytest.raises(ReleaseError, match="not a lock file"):
            Project(Config(folder=tmp_path)).release()


def test_two_projects_in_one_process_have_their_own_code(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two", "one"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "same_name.py").write_text(f"from eventmig import Registry\nwhose = ['{name}']\n")
        found += load_object(Config(folder=folder), "same_name:whose", key="registry", kind=list)
    assert found == ["one", "two", "one"]
