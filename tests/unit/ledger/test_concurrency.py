"""Writers in threads and processes lose nothing and keep one chain."""

import multiprocessing
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

from mlplatform.contracts import Decision
from mlplatform.ledger import Ledger

Decide = Callable[..., Decision]
WRITERS, APPENDS = 4, 50


def append_many(url: str, decisions: list[Decision]) -> list[int]:
    """Open a ledger, append, and return the rows' numbers."""
    ledger = Ledger(url)
    return [ledger.append(decision).seq for decision in decisions]


def check(url: str, numbers: list[list[int]]) -> None:
    """Check that each append has its own row and that the chain is whole."""
    total = WRITERS * APPENDS
    assert Ledger(url).verify() == total
    assert list(range(1, total + 1)) == sorted(number for part in numbers for number in part)
    assert all(part == sorted(part) for part in numbers)


def work(decide: Decide) -> list[list[Decision]]:
    """Return what each writer appends."""
    return [[decide(f"{writer}/{n}") for n in range(APPENDS)] for writer in range(WRITERS)]


def test_four_processes_that_also_race_to_create_the_ledger_lose_nothing(
    url: str, decide: Decide
) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WRITERS, mp_context=context) as pool:
        numbers = list(pool.map(append_many, [url] * WRITERS, work(decide)))

    check(url, numbers)


def test_four_threads_with_one_ledger_lose_nothing(url: str, decide: Decide) -> None:
    ledger = Ledger(url)

    def write(decisions: list[Decision]) -> list[int]:
        return [ledger.append(decision).seq for decision in decisions]

    with ThreadPoolExecutor(WRITERS) as pool:
        numbers = list(pool.map(write, work(decide)))

    check(url, numbers)


def test_the_same_decisions_from_all_writers_are_kept_once(url: str, decide: Decide) -> None:
    decisions = [decide(f"{n}") for n in range(10)]
    with ThreadPoolExecutor(WRITERS) as pool:
        numbers = list(pool.map(append_many, [url] * WRITERS, [decisions] * WRITERS))

    assert Ledger(url).verify() == 10
    assert {WRITERS} == set(Counter(n for part in numbers for n in part).values())


def test_readers_see_a_whole_chain_while_it_grows(url: str, decide: Decide) -> None:
    ledger = Ledger(url)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(append_many, url, [decide(f"{n}") for n in range(APPENDS)])
        seen = [ledger.verify()]
        while not writing.done():
            seen.append(ledger.verify())
        writing.result()

    assert seen == sorted(seen)
    assert ledger.verify() == APPENDS


def test_a_writer_that_is_killed_leaves_a_whole_chain(url: str, decide: Decide, root: Path) -> None:
    Ledger(url).append(decide("first"))
    program = (
        "import sys, itertools\n"
        "from mlplatform.contracts import Decision\n"
        "from mlplatform.ledger import Ledger\n"
        "ledger, row = Ledger(sys.argv[1]), Decision.model_validate_json(sys.argv[2])\n"
        "for n in itertools.count():\n"
        "    ledger.append(row.model_copy(update={'key': str(n)}))\n"
        "    print(n, flush=True)\n"
    )
    command = [sys.executable, "-c", program, url, decide("x").model_dump_json()]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        promised = [int(writer.stdout.readline()) for _ in range(10)]
        writer.kill()

    ledger = Ledger(url)
    count = ledger.verify()

    assert count >= 1 + len(promised)
    assert ledger.append(decide("after")).seq == count + 1
    assert ledger.verify() == count + 1
