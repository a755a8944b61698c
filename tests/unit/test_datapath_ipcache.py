"""The map of identities when it is full."""

from __future__ import annotations

import errno
from ipaddress import ip_network
from typing import cast

import pytest

from datapath.codec import IpcacheValue, ipcache_key
from datapath.facade import Datapath
from datapath.libbpf import BpfError, Map

HELD, OTHER = ip_network("10.0.0.1/32"), ip_network("10.0.0.2/32")


class Trie(dict[bytes, bytes]):
    """As Linux 6.6 has it: what is full refuses a new value for a key that is there, too."""

    def set(self, key: bytes, value: bytes) -> None:
        if len(self) >= 1:
            raise BpfError(errno.ENOSPC, "map ipcache")
        self[key] = value

    def delete(self, key: bytes) -> bool:
        return self.pop(key, None) is not None


class Epoch:
    """How often it rose."""

    def __init__(self) -> None:
        self.value = 0

    def get(self, _: bytes) -> bytes:
        return self.value.to_bytes(8, "little")

    def set(self, _: bytes, value: bytes) -> None:
        self.value = int.from_bytes(value, "little")


def test_an_address_never_keeps_the_rights_of_whoever_had_it_before() -> None:
    trie, epoch = Trie(), Epoch()
    datapath = Datapath.__new__(Datapath)
    datapath._maps = {"ipcache": cast(Map, trie), "ipcache_epoch": cast(Map, epoch)}
    datapath._ipcache = {}
    datapath.upsert_ipcache(HELD, 300, 1)
    datapath.upsert_ipcache(HELD, 301, 2)
    assert trie == {ipcache_key(HELD): IpcacheValue(301, 2).pack()}
    assert epoch.value == 3  # who looked in between has to look again
    with pytest.raises(BpfError):
        datapath.upsert_ipcache(OTHER, 302)
    assert trie == {ipcache_key(HELD): IpcacheValue(301, 2).pack()}
    datapath.delete_ipcache(HELD)
    datapath.upsert_ipcache(OTHER, 302)
    assert trie == {ipcache_key(OTHER): IpcacheValue(302).pack()}
