"""Importing a library without a large module that it imports and rarely uses."""

import importlib
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import trustme

from controller.azure.http.late_modules import import_without

LARGE = """
__version__ = "1"
LIMIT = 7
class Key: ...
def make(size=1): return Key() if size == 1 else [Key()] * size
"""
Import = Callable[[str], ModuleType]


@pytest.fixture
def import_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Import]:
    """Return a function that imports a library with this text, without the package `large`."""
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "__init__.py").write_text("")
    (tmp_path / "large" / "keys.py").write_text(LARGE)
    monkeypatch.syspath_prepend(tmp_path)

    def imported(text: str) -> ModuleType:
        (tmp_path / "library.py").write_text(text)
        importlib.invalidate_caches()
        import_without("large", "library")
        return sys.modules["library"]

    yield imported
    for name in ("library", "large", "large.keys"):
        sys.modules.pop(name, None)


def loaded() -> bool:
    return "large.keys" in sys.modules


def test_a_name_that_is_used_later_is_loaded_then(import_library: Import) -> None:
    """The import loads nothing; the first call loads the module and does what it is there for."""
    library = import_library("from large.keys import make\ndef two(): return make(size=2)")
    assert not loaded()
    assert len(library.two()) == 2
    assert loaded()


def test_an_attribute_is_that_of_the_module(import_library: Import) -> None:
    """A submodule taken as a name leads to its contents, once they are used."""
    library = import_library("from large import keys\ndef limit(): return keys.LIMIT")
    assert not loaded()
    assert library.limit() == 7


def test_isinstance_compares_with_the_real_class(import_library: Import) -> None:
    """What another part of the process has made is recognised."""
    library = import_library(
        "from large.keys import Key\ndef is_key(each): return isinstance(each, Key)"
    )
    assert not loaded()
    real = importlib.import_module("large.keys")
    assert library.is_key(real.Key())
    assert not library.is_key(object())


def test_an_annotation_loads_nothing(import_library: Import) -> None:
    """Libraries name the types of their arguments; nothing asks for them at run time."""
    library = import_library(
        "from typing import List, Optional, Union\n"
        "from large.keys import Key\n"
        "def use(key: Optional[Key], more: List[Key], any: Union[str, Key] = '') -> Key: ..."
    )
    assert typing.get_type_hints(library.use)
    assert not loaded()


def test_a_base_class_is_loaded_with_the_library(import_library: Import) -> None:
    """A class cannot be derived from what is not there yet."""
    library = import_library("from large.keys import Key\nclass Own(Key): ...")
    assert loaded()
    assert issubclass(library.Own, sys.modules["large.keys"].Key)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("from large.keys import LIMIT\nMORE = LIMIT + 1", id="a number"),
        pytest.param("from large.keys import Key\nMORE: Key | None = None", id="a union"),
        pytest.param("from large.keys import __version__ as MORE", id="a special name"),
        pytest.param("from large.keys import make\nMORE = make()", id="a call"),
    ],
)
def test_a_library_that_uses_the_module_at_once_gets_it(import_library: Import, text: str) -> None:
    """Another version of a library may do anything; then it is imported as usual."""
    library = import_library(text)
    assert hasattr(library, "MORE") or "MORE" in library.__annotations__
    assert loaded()


def test_all_other_code_imports_the_module_as_usual(import_library: Import) -> None:
    """No stand-in stays behind for those who import the module themselves."""
    import_library("from large.keys import make")
    assert importlib.import_module("large.keys").LIMIT == 7


def test_a_module_that_is_loaded_is_used(import_library: Import) -> None:
    """Nothing is saved then, so nothing is different."""
    real = importlib.import_module("large.keys")
    library = import_library("from large.keys import make")
    assert library.make is real.make


def test_a_library_that_is_missing_is_an_error(import_library: Import) -> None:
    """The error is that of the import system, and no stand-in stays behind."""
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        import_without("large", "no_such_library")
    assert importlib.import_module("large.keys").LIMIT == 7


# --- the SDKs themselves ---


def run(program: str, *arguments: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True
    )
    return finished.stdout.strip()


def test_the_sdks_load_without_cryptography() -> None:
    """The installed versions of the SDKs can be imported without it."""
    assert run("import sys, controller.azure.http.sdk; print('cryptography' in sys.modules)") == (
        "False"
    )


def test_a_certificate_credential_still_works(tmp_path: Path) -> None:
    """An SDK that needs cryptography after all loads it: here to read a client certificate."""
    rsa = trustme.KeyType.RSA
    issued = trustme.CA(key_type=rsa).issue_cert("agent.example", key_type=rsa)
    pem = tmp_path / "client.pem"
    pem.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
    program = (
        "import sys, controller.azure.http.sdk\n"
        "from azure.identity.aio import CertificateCredential\n"
        "CertificateCredential('tenant', 'client', sys.argv[1])\n"
        "print('cryptography' in sys.modules)"
    )
    assert run(program, str(pem)) == "True"


def test_encryption_by_the_client_still_works() -> None:
    """The other use: a key that the client wraps, of the storage SDK."""
    program = (
        "import sys, controller.azure.http.sdk\n"
        "from azure.storage.blob import _encryption\n"
        "class Key:\n"
        "    wrap_key = staticmethod(lambda key, algorithm='A256KW': key)\n"
        "    get_kid = staticmethod(lambda: 'kid')\n"
        "    get_key_wrap_algorithm = staticmethod(lambda: 'A256KW')\n"
        "metadata, data = _encryption.encrypt_blob(b'content', Key, '2.0')\n"
        "print(len(data) > len(b'content'), 'cryptography' in sys.modules)"
    )
    assert run(program) == "True True"
