"""Measures the server against what one would write instead: ``python -m benchmarks``.

A *scenario* (:mod:`benchmarks.scenarios`) says what a crowd of clients does. It is played to one
server at a time: ours, or one of the relays in :mod:`benchmarks.peers`, started anew for each run
and alone on a core (:mod:`benchmarks.servers`). The clients are one program in C on another core
(``load.c``, run by :mod:`benchmarks.load`). A run gives one sample: what the clients counted, and
what the server took for it. A *round* plays every scenario's runs once, one peer after another;
figures are compared within a round only, and what is told is the median of the rounds
(:mod:`benchmarks.results`). :mod:`benchmarks.plots` draws, ``__main__`` is the command line.

To add a scenario, add a row to :data:`benchmarks.scenarios.SCENARIOS`; to add a server, a row to
:data:`benchmarks.servers.PEERS`.
"""
