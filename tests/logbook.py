"""Logs in files, written to without a server: what there may be in one, and what is in it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import apsw
from hypothesis import strategies as st
from twisted.internet.task import Clock

from chatsvc.messages.errors import Code, Refused
from chatsvc.store import Append
from chatsvc.store.rules import Rules
from chatsvc.store.sqlite.file import LogFile
from chatsvc.store.sqlite.transfer import export_log, import_log
from chatsvc.store.sqlite.writer import Job, Task, Writer
from tests.fakes import DAY, make_clock
from tests.store_suite.driver import group, to, topic

__all__ = ["Log", "exported", "imported", "sample", "steps", "tables", "written"]


class Log:
    """A log that is written to; its clock stands still but for :meth:`wait`."""

    def __init__(self, file: LogFile, clock: Clock) -> None:
        self._clock = clock
        self._writer = Writer(file, clock, retention=30 * DAY, quota=1000)
        self._writer.open()

    def close(self) -> None:
        """Leave the file as it is."""
        self._writer.close()

    def do(self, *jobs: Job) -> list[Any]:
        """Have jobs done in one batch; what they give, refusals too."""
        results = [outcome.result for outcome in self._writer.commit(jobs)]
        for result in results:
            assert not isinstance(result, Refused) or result.code is not Code.UNAVAILABLE, result
        return results

    def task(self, work: Callable[[Rules], Any]) -> Any:
        """Have something done by the rules."""
        return self.do(Task(work))[0]

    def send(self, user: str, address: Any, msg: str | None = "hi", **content: Any) -> Any:
        """Send a message."""
        return self.do(Append(op="send", user=user, address=address, msg=msg, **content))[0]

    def join(self, user: str, name: str) -> None:
        """Join a group."""
        self.do(Append(op="join", user=user, address=group(name)))

    def leave(self, user: str, name: str) -> None:
        """Leave a group."""
        self.do(Append(op="leave", user=user, address=group(name)))

    def wait(self, days: float) -> None:
        """Let time pass, with what expires in it."""
        self._clock.advance(days * DAY)
        while self.task(lambda _: self._writer.expire()):
            pass


@contextmanager
def written(path: Path, epoch: str = "epoch-1", days: float = 0) -> Iterator[Log]:
    """The log in a file, which is made where there is none, so many days after the first."""
    file = LogFile(path, new_epoch=lambda: epoch, durability="normal")
    file.open()
    clock = make_clock()
    clock.advance(days * DAY)
    with closing(file), closing(Log(file, clock)) as log:
        yield log


def sample(log: Log) -> None:
    """Write something of every kind."""
    log.send("alice", to("bob"), key="k1", digest=b"\1\xff", origin="s1")
    log.wait(31)  # only the key is left of it
    log.send("alice", to("bob"), None, data=b'{"a" : [1, "\xc3\xa9"]}', key="k2", digest=b"2")
    log.send("bob", to("alice"), 'a "quoted"\nline\0\U0001f600', reply_to=2)
    log.send("carol", topic("a/b"), retain=True)
    log.task(lambda rules: rules.admit("bob"))
    log.task(lambda rules: rules.start_after("bob", "phone", None, None))
    log.task(lambda rules: rules.save_positions({("bob", "phone"): 3, ("bob", None): 2}))
    log.task(lambda rules: rules.subscribe("bob", "a/#"))
    for user in ("alice", "bob", "carol"):
        log.join(user, "devs")
    log.task(lambda rules: rules.mark_read("bob", to("alice"), 3))
    log.send("carol", group("devs"), None, data=b"[\n1]")
    log.leave("carol", "devs")
    log.send("bob", topic("c"), "ho")
    log.task(lambda rules: rules.unsubscribe("bob", "a/#"))
    log.join("carol", "devs")
    log.leave("alice", "devs")


# --- what there may be ---

USERS = st.sampled_from(("alice", "bob", "carol", "d.-_@"))
GROUPS = st.sampled_from(("devs", "ops")).map(group)
TOPICS = st.sampled_from(("a", "a/b", "c")).map(topic)
FILTERS = st.sampled_from(("#", "a/#", "+", "c"))
TEXT = st.text(max_size=10)
DATA = st.builds(
    lambda value, indent, ascii_only: json.dumps(
        value, indent=indent, ensure_ascii=ascii_only
    ).encode(),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=5,
    ),
    st.none() | st.integers(0, 2),
    st.booleans(),
)
KEYED = {"key": st.none() | st.text(min_size=1, max_size=5), "digest": st.binary(max_size=4)}
SENT = {
    "op": st.just("send"),
    "user": USERS,
    "msg": TEXT,
    "data": st.none() | DATA,
    "origin": TEXT,
    **KEYED,
}


def _task(work: Callable[..., Any], *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(*arguments).map(lambda given: Task(lambda rules: work(rules, *given)))


_jobs = st.one_of(
    st.builds(
        Append,
        address=USERS.map(to) | GROUPS,
        reply_to=st.none() | st.integers(1, 9),
        **SENT,
    ),
    st.builds(Append, address=TOPICS, retain=st.booleans(), **SENT),
    st.builds(
        Append,
        op=st.sampled_from(("create", "join", "join", "join", "leave", "leave")),
        user=USERS,
        address=GROUPS,
        public=st.booleans(),
        **KEYED,
    ),
    _task(Rules.admit, USERS),
    _task(Rules.subscribe, USERS, FILTERS),
    _task(Rules.unsubscribe, USERS, FILTERS),
    _task(Rules.start_after, USERS, st.sampled_from(("phone", "tv")), st.none(), st.none()),
    _task(Rules.mark_read, USERS, USERS.map(to) | GROUPS | TOPICS, st.integers(0, 9)),
    _task(
        lambda rules, user, device: rules.save_positions({(user, device): rules.last}),
        USERS,
        st.sampled_from((None, "phone")),
    ),
)
_passing = st.sampled_from((1, 10, 31))


def steps(most: int = 30) -> st.SearchStrategy[Callable[[Log], None]]:
    """What may happen to a log, some days apart."""

    def as_one(happening: Iterable[Job | int]) -> Callable[[Log], None]:
        def happen(log: Log) -> None:
            for job in happening:
                if isinstance(job, int):
                    log.wait(job)
                else:
                    log.do(job)

        return happen

    return st.lists(_jobs | _jobs | _jobs | _passing, max_size=most).map(as_one)


# --- what is in one ---


def tables(path: Path) -> dict[str, list[Any]]:
    """All that is in a file, but for its index and for which boot of the machine has opened it."""
    with closing(apsw.Connection(str(path))) as connection:
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        found = {
            str(name): sorted(connection.execute(f"SELECT * FROM {name}"), key=repr)
            for (name,) in names
        }
    found["log"] = [row[:-2] for row in found["log"]]
    del found["places"]
    return found


def exported(path: Path) -> bytes:
    """An export of a log."""
    return b"".join(export_log(path))


def imported(path: Path, export: bytes, epoch: str = "imported") -> None:
    """Import an export into a log."""
    import_log(path, io.BytesIO(export), new_epoch=lambda: epoch)
