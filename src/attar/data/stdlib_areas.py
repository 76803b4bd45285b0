"""The areas of Python's standard library as a literal table, and the location of its sources.

Areas group modules by topic so that each has a few hundred docstrings on CPython 3.11 to 3.14;
modules that were added or removed between these versions are included. A module in no area (`this`,
`antigravity`) is not used. Imports nothing heavy, because the fingerprint of the data uses this
module too.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from attar.errors import DataError

AREAS: Mapping[str, tuple[str, ...]] = {
    "networking": tuple(
        "asynchat asyncore cgi cgitb ftplib http imaplib ipaddress netrc nntplib nturl2path "
        "poplib selectors smtpd "
        "smtplib socket socketserver ssl telnetlib urllib webbrowser wsgiref xmlrpc".split()
    ),
    "email": tuple("email mailbox mailcap mimetypes quopri uu".split()),
    "concurrency": tuple(
        "_threading_local asyncio concurrent contextvars multiprocessing queue sched "
        "threading".split()
    ),
    "files and storage": tuple(
        "_compression _pyio bz2 compression copyreg dbm filecmp fileinput fnmatch genericpath "
        "glob gzip io linecache lzma ntpath pathlib pickle posixpath shelve shutil sqlite3 stat "
        "tarfile tempfile "
        "zipfile".split()
    ),
    "text and formats": tuple(
        "_markupbase base64 codecs configparser csv difflib encodings gettext html json locale "
        "plistlib re sre_parse "
        "string stringprep textwrap tomllib xdrlib xml".split()
    ),
    "numbers and dates": tuple(
        "_pydatetime _pydecimal _strptime calendar cmath colorsys datetime decimal fractions "
        "hashlib hmac numbers "
        "random secrets statistics uuid zoneinfo".split()
    ),
    "data types": tuple(
        "_collections_abc _py_abc _weakrefset abc array bisect collections contextlib copy "
        "dataclasses enum functools "
        "graphlib heapq operator pprint reprlib struct types typing weakref".split()
    ),
    "testing and debugging": tuple(
        "_colorize bdb cProfile doctest logging pdb profile profiling pstats timeit trace "
        "traceback tracemalloc "
        "unittest warnings".split()
    ),
    "language and import": tuple(
        "_pyrepl annotationlib ast code codeop compileall dis imp importlib inspect keyword "
        "modulefinder opcode pickletools pkgutil py_compile pyclbr pydoc rlcompleter runpy "
        "symtable tabnanny "
        "token tokenize zipimport".split()
    ),
    "system and packaging": tuple(
        "_aix_support _osx_support argparse cmd crypt ctypes curses distutils ensurepip getopt "
        "getpass optparse os "
        "pipes platform pty shlex signal site subprocess sysconfig tty venv zipapp".split()
    ),
    "graphical interface": tuple("tkinter turtle".split()),
    "editor": ("idlelib",),
}
"""Area → top-level modules. The order of areas is the order of the classes."""

SKIPPED_FOLDERS = frozenset(
    "test tests idle_test lib2to3 site-packages dist-packages __pycache__ turtledemo "
    "lib-dynload".split()
)


def area_of(source: Path) -> str | None:
    """The area of a source file, by its path in the standard library; None: in no area.

    Example:
        >>> area_of(Path("asyncio/queues.py")), area_of(Path("this.py"))
        ('concurrency', None)
    """
    module = source.parts[0].removesuffix(".py")
    return next((area for area, modules in AREAS.items() if module in modules), None)


def stdlib_sources() -> tuple[Path, list[Path]]:
    """The standard library's folder, and its source files that belong to an area, in a fixed order.

    Raises:
        DataError: this Python was installed without its sources.
    """
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
        found += [Path(folder, file) for file in sorted(files) if file.endswith(".py")]
    sources = [file for file in found if area_of(file.relative_to(root))]
    if not sources:
        raise DataError(
            f"the standard library of this Python has no sources in {root} (0 .py files; an "
            "embedded or stripped Python?); use a Python with its library, or another source of "
            'data, such as source = "files"'
        )
    return root, sources
