"""A store on S3 as zarr sees it: its objects, read through the listing that was checked."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import NoReturn

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from catalogs.object_path import ObjectPath


class Objects(Store):
    """The objects below a path, to be read."""

    def __init__(self, path: ObjectPath):
        super().__init__(read_only=True)
        self.path = path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Objects) and self.path == other.path

    def __str__(self) -> str:
        return str(self.path)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        content = await asyncio.to_thread(self._read, key, byte_range)
        return None if content is None else prototype.buffer.from_bytes(content)

    def _read(self, key: str, byte_range: ByteRequest | None) -> bytes | None:
        file = self.path / key
        if (status := file.head()) is None:
            return None
        size = status.st_size
        match byte_range:
            case None:
                return file.read_range(0, size)
            case RangeByteRequest(start, stop):
                return file.read_range(start, stop)
            case OffsetByteRequest(start):
                return file.read_range(start, size)
            case SuffixByteRequest(length):
                return file.read_range(max(0, size - length), size)
            case _:
                raise AssertionError(byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return await asyncio.gather(*(self.get(key, prototype, span) for key, span in key_ranges))

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread((self.path / key).is_file)

    async def list(self) -> AsyncIterator[str]:
        for file in await asyncio.to_thread(lambda: [*self.path.rglob("*")]):
            yield file.relative_to(self.path)

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        async for key in self.list():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        folder = prefix.strip("/")
        names = {
            key.removeprefix(folder).lstrip("/").partition("/")[0]: None
            async for key in self.list_prefix(f"{folder}/" if folder else "")
        }
        for name in names:
            yield name

    @property
    def supports_listing(self) -> bool:
        return True

    @property
    def supports_writes(self) -> bool:
        return False

    @property
    def supports_deletes(self) -> bool:
        return False

    async def set(self, key: str, value: Buffer) -> NoReturn:
        raise NotImplementedError(key)

    async def delete(self, key: str) -> NoReturn:
        raise NotImplementedError(key)
