"""The parts of the suite that every store runs, by noun; see :mod:`tests.store_conformance`."""
