"""twistd knows `chat`, and pays nothing for it until it is asked for."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from twisted.application.service import IServiceMaker, ServiceMaker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

from chatsvc import tap


class ThePlugin(SynchronousTestCase):
    """What twistd finds."""

    def setUp(self) -> None:
        """Look for it as twistd does."""
        found = [maker for maker in getPlugins(IServiceMaker) if maker.tapname == "chat"]
        self.assertEqual(len(found), 1)
        maker = found[0]
        assert isinstance(maker, ServiceMaker)
        self.maker = maker

    def test_it_is_called_chat(self) -> None:
        """And says in a line what it is."""
        self.assertEqual((self.maker.name, self.maker.tapname), ("chatsvc", "chat"))
        self.assertRegex(self.maker.description, r"^[A-Z][^\n]{20,90}\.$")

    def test_it_leads_to_the_options_and_the_service(self) -> None:
        """Those of `chatsvc.tap`."""
        self.assertIs(self.maker.options, tap.Options)
        self.assertIs(self.maker.makeService, tap.makeService)

    def test_looking_at_it_loads_nothing_of_ours(self) -> None:
        """`twistd web` must not be slower, nor fail, because chatsvc is installed."""
        script = (
            "import sys, twisted.plugins.chatsvc_plugin\n"
            "print([name for name in sys.modules if name.split('.')[0] in"
            " ('chatsvc', 'autobahn', 'msgspec')])"
        )
        loaded = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        self.assertEqual(loaded.stdout.strip(), "[]")

    def test_it_adds_to_twisteds_own_packages(self) -> None:
        """An `__init__.py` in either directory would hide Twisted, or its plugins."""
        spec = find_spec("twisted.plugins.chatsvc_plugin")
        assert spec is not None
        assert spec.origin is not None
        plugins = Path(spec.origin).parent
        if plugins != Path(sys.modules["twisted"].__file__ or "").parent / "plugins":
            self.assertFalse((plugins / "__init__.py").exists())
            self.assertFalse((plugins.parent / "__init__.py").exists())
