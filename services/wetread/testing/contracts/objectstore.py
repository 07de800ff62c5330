"""What every object store has to do (port ``ObjectStore``). Subclass and give a ``store`` fixture."""

from __future__ import annotations

from typing import Protocol

import pytest

from wetread.core.errors import NotFound
from wetread.core.ports.objects import Erasable, ObjectRef, ObjectStore


class ErasableStore(ObjectStore, Erasable, Protocol):
    """A store that can give room back."""


class ObjectStoreContract:
    """Subclasses define the fixture ``store``: a new, empty store."""

    def test_bytes_come_back(self, store: ObjectStore) -> None:
        """A payload given in chunks is read whole and in ranges."""
        (ref,) = store.append("t", [(b"{}", [b"hello ", memoryview(b"world")])])
        assert ref.length == 11
        assert store.read(ref) == b"hello world"
        assert store.read(ref, 6) == b"world"
        assert store.read(ref, 2, 3) == b"llo"
        assert store.read(ref, 6, 100) == b"world"
        assert store.read(ref, 11, 5) == b""

    def test_group_keeps_its_order(self, store: ObjectStore) -> None:
        """One append stores many records; each has its own address."""
        refs = store.append("t", [(b"%d" % n, [bytes([n]) * n]) for n in range(1, 40)])
        assert [store.read(ref) for ref in refs] == [bytes([n]) * n for n in range(1, 40)]
        assert len({ref.locator for ref in refs}) == 39

    def test_nothing_to_store(self, store: ObjectStore) -> None:
        """An empty group is no error."""
        assert store.append("t", []) == []
        assert list(store.scan()) == []

    def test_empty_payload(self, store: ObjectStore) -> None:
        """A record may have no payload."""
        (ref,) = store.append("t", [(b"x", [])])
        assert store.read(ref) == b""

    def test_scan_tells_everything(self, store: ObjectStore) -> None:
        """Records describe themselves: tenant, description and bytes, oldest first."""
        store.append("a", [(b"1", [b"one"])])
        store.append("b", [(b"2", [b"two"])])
        store.append("a", [(b"3", [b"three"])])
        found = [(tenant, description, store.read(ref)) for tenant, description, ref in store.scan()]
        assert found == [("a", b"1", b"one"), ("b", b"2", b"two"), ("a", b"3", b"three")]

    def test_scan_goes_on_behind_marks(self, store: ObjectStore) -> None:
        """A mark hides what was stored up to it."""
        first, second = store.append("a", [(b"1", [b"one"]), (b"2", [b"two"])])
        store.append("a", [(b"3", [b"three"])])
        assert [description for _, description, _ in store.scan([first.locator])] == [b"2", b"3"]
        assert [description for _, description, _ in store.scan([second.locator])] == [b"3"]

    def test_addresses_hold_no_names(self, store: ObjectStore) -> None:
        """Tenant and description never become part of an address."""
        (ref,) = store.append("../../evil", [(b"../../etc/passwd", [b"x"])])
        assert "evil" not in ref.locator
        assert "passwd" not in ref.locator
        assert store.read(ref) == b"x"

    @pytest.mark.parametrize("locator", ["", "../../etc/passwd:0", "/etc/passwd:0", "x:y", "0" * 16 + "/web-1:0"])
    def test_foreign_addresses_are_not_found(self, store: ObjectStore, locator: str) -> None:
        """What this store did not hand out is no address."""
        with pytest.raises(NotFound):
            store.read(ObjectRef(locator, 1))

    def test_erased_records_are_gone_and_the_others_where_they_were(self, store: ErasableStore) -> None:
        """A second time changes nothing; marks that point at what is erased still mark."""
        (first,), (second,), (third,) = (
            store.append("a", [(b"%d" % number, [b"payload %d" % number])]) for number in (1, 2, 3)
        )
        done = store.erase([second.locator])
        assert done.locators == (second.locator,)
        assert done.freed_bytes >= second.length
        assert [description for _, description, _ in store.scan()] == [b"1", b"3"]
        assert [description for _, description, _ in store.scan([second.locator])] == [b"3"]
        assert store.read(first) == b"payload 1"
        assert store.read(third) == b"payload 3"
        assert store.erase([second.locator]).locators == (second.locator,)
        (fourth,) = store.append("a", [(b"4", [b"payload 4"])])
        assert [ref for _, _, ref in store.scan()] == [first, third, fourth]
