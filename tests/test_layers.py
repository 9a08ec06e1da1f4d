"""The rooms of the house: imports go downward only, one noun a file, each file says what it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import chatsvc

PACKAGE = Path(chatsvc.__file__).parent
PLUGIN = Path(__file__).parent.parent / "twisted" / "plugins" / "chatsvc_plugin.py"
MOST_LINES = 600

FLOORS = [
    ["chatsvc.cli", "chatsvc.tap"],
    ["chatsvc.service"],
    ["chatsvc.websocket"],
    [
        "chatsvc.compression",
        "chatsvc.draining",
        "chatsvc.handover",
        "chatsvc.session",
        "chatsvc.web.pages",
        "chatsvc.wire",
    ],
    ["chatsvc.web.site"],
    ["chatsvc.web.channel"],
    ["chatsvc.operations", "chatsvc.pipeline"],
    ["chatsvc.stream"],
    ["chatsvc.connection", "chatsvc.proof", "chatsvc.state"],
    ["chatsvc.circle", "chatsvc.registry"],
    ["chatsvc.store.memory", "chatsvc.store.sqlite.lanes"],
    ["chatsvc.store.sqlite", "chatsvc.store.sqlite.transfer"],
    [
        "chatsvc.store.sqlite.reader",
        "chatsvc.store.sqlite.soundness",
        "chatsvc.store.sqlite.writer",
    ],
    ["chatsvc.store.memory_log"],
    [
        "chatsvc.store.reading",
        "chatsvc.store.runs",
        "chatsvc.store.sqlite.expiry",
        "chatsvc.store.sqlite.file",
        "chatsvc.store.sqlite.lines",
        "chatsvc.store.sqlite.records",
    ],
    [
        "chatsvc.store.sqlite.places",
        "chatsvc.store.sqlite.schema",
        "chatsvc.store.sqlite.statements",
    ],
    ["chatsvc.store.rules"],
    ["chatsvc.store.spans", "chatsvc.store.tables"],
    ["chatsvc.store"],
    ["chatsvc.messages.decoding", "chatsvc.messages.manual"],
    ["chatsvc.messages.commands"],
    ["chatsvc.messages.entries"],
    ["chatsvc.messages.events"],
    ["chatsvc.messages.errors"],
    ["chatsvc.messages", "chatsvc.topics", "chatsvc.framing", "chatsvc.web"],
    ["chatsvc"],
]
"""From the top down: a module imports what is below its own floor. A new one is added here."""

FLOOR_OF = {module: floor for floor, modules in enumerate(FLOORS) for module in modules}


def sources() -> dict[str, Path]:
    """Each module of the package, and its file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


PACKAGES = {name for name, path in sources().items() if path.name == "__init__.py"}


def imports(source: str, module: str, known: dict[str, int]) -> Iterator[str]:
    """The modules of ours that a source imports, wherever in it; ``known`` tells them from names.

    ``from a import b`` imports ``a.b`` where that is a module, else ``a``.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                above = parts[: len(parts) - node.level + (module in PACKAGES)]
                base = ".".join([*above, base] if base else above)
            named = [
                full if (full := f"{base}.{alias.name}") in known else base for alias in node.names
            ]
        else:
            continue
        for name in named:
            if name == "chatsvc" or name.startswith("chatsvc."):
                yield name


class TheFloors(SynchronousTestCase):
    """Which module may know which."""

    def test_every_module_has_its_floor(self) -> None:
        """A new one is put into the table deliberately, a removed one taken out."""
        self.assertEqual(sorted(sources()), sorted(FLOOR_OF))

    def test_imports_go_downward_only(self) -> None:
        """Never up, and never to a neighbour on the same floor."""
        upward = [
            f"{module} imports {imported}"
            for module, path in sources().items()
            for imported in imports(path.read_text(), module, FLOOR_OF)
            if FLOOR_OF.get(imported, -1) <= FLOOR_OF[module]
        ]
        self.assertEqual(upward, [])

    def test_messages_know_nothing_else_of_ours(self) -> None:
        """They are values: no client, no store, no socket."""
        foreign = [
            f"{module} imports {imported}"
            for module, path in sources().items()
            if module.startswith("chatsvc.messages")
            for imported in imports(path.read_text(), module, FLOOR_OF)
            if not imported.startswith("chatsvc.messages.")
        ]
        self.assertEqual(foreign, [])

    def test_the_core_knows_no_socket(self) -> None:
        """Only the edge imports Autobahn; the reactor itself is chosen where all is wired."""
        autobahn, reactor = set(), set()
        for module, path in sources().items():
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom):
                    names = {f"{node.module}.{alias.name}" for alias in node.names}
                elif isinstance(node, ast.Import):
                    names = {alias.name for alias in node.names}
                else:
                    continue
                if any(name.split(".")[0] == "autobahn" for name in names):
                    autobahn.add(module)
                if "twisted.internet.reactor" in names:
                    reactor.add(module)
        edge = {"chatsvc.compression", "chatsvc.websocket", "chatsvc.wire"}
        self.assertEqual(autobahn, edge)
        self.assertEqual(reactor, {"chatsvc.tap"})

    def test_the_plugin_imports_nothing_of_ours(self) -> None:
        """`twistd` loads it for every command; it names the service as a string."""
        source = PLUGIN.read_text()
        self.assertEqual(list(imports(source, "chatsvc_plugin", FLOOR_OF)), [])
        self.assertIn('"chatsvc.tap"', source)

    def test_there_is_no_package_where_twisted_has_its_own(self) -> None:
        """An `__init__.py` there would hide Twisted."""
        for folder in (PLUGIN.parent, PLUGIN.parent.parent):
            self.assertFalse((folder / "__init__.py").exists())


class TheFiles(SynchronousTestCase):
    """What each file owes its reader."""

    def test_every_module_says_what_it_is(self) -> None:
        """In a docstring; the plugin too."""
        silent = [
            str(path)
            for path in [*sources().values(), PLUGIN]
            if not (ast.get_docstring(ast.parse(path.read_text())) or "").strip()
        ]
        self.assertEqual(silent, [])

    def test_no_module_is_longer_than_can_be_read_at_once(self) -> None:
        """Six hundred lines at the very most."""
        long = [
            name
            for name, path in sources().items()
            if len(path.read_text().splitlines()) > MOST_LINES
        ]
        self.assertEqual(long, [])


class TheReader(SynchronousTestCase):
    """The test's own reading of imports."""

    def reads(self, source: str, module: str = "chatsvc.session") -> list[str]:
        """What is found in a source."""
        return list(imports(source, module, FLOOR_OF))

    def test_every_form_of_import_is_seen(self) -> None:
        """Modules and names, absolute and relative, at the top or inside."""
        self.assertEqual(self.reads("import chatsvc.state as s, os"), ["chatsvc.state"])
        self.assertEqual(self.reads("from chatsvc import state"), ["chatsvc.state"])
        self.assertEqual(self.reads("from chatsvc import __version__"), ["chatsvc"])
        self.assertEqual(self.reads("from chatsvc.state import ChatState"), ["chatsvc.state"])
        self.assertEqual(self.reads("from . import state"), ["chatsvc.state"])
        self.assertEqual(self.reads("from .state import ChatState"), ["chatsvc.state"])
        self.assertEqual(
            self.reads("from . import memory\nfrom ..state import x", "chatsvc.store"),
            ["chatsvc.store.memory", "chatsvc.state"],
        )
        self.assertEqual(
            self.reads(
                "def f():\n    if x:\n        from .tables import y", "chatsvc.store.memory"
            ),
            ["chatsvc.store.tables"],
        )
        self.assertEqual(self.reads("import chatsvcs, twisted.internet"), [])
