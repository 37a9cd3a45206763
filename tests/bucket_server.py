"""A bucket on this machine: the package gcp-storage-emulator, and what it lacks of the real API."""

import contextlib
import functools
import http.server
import pathlib
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator

from gcp_storage_emulator import server, storage
from gcp_storage_emulator.handlers import buckets

BUCKET = "runs"


class Bucket(storage.Storage):
    """What lies in the bucket, and the requests that were made, each "METHOD path?query"."""

    port = 0

    def __init__(self):
        super().__init__(use_memory_fs=True)
        self.requests: list[str] = []
        # Is told of an object before it is there.
        self.on_write: Callable[[str], None] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a process that is to find the bucket here."""
        address = f"http://127.0.0.1:{self.port}"
        return {
            "STORAGE_EMULATOR_HOST": address,  # for gcsfs and google-cloud-storage
            "TENSORSTORE_GCS_HTTP_URL": address,  # for Orbax's tensorstore
        }

    def names(self) -> set[str]:
        """The names of the objects."""
        return set(self.objects.get(BUCKET, {}))

    def generation(self, name: str) -> str:
        """The number of the object's last writing, "0" where there is none."""
        return self.objects.get(BUCKET, {}).get(name, {}).get("generation", "0")

    def copy(self, folder: str, place: pathlib.Path) -> pathlib.Path:
        """Writes the objects of a folder as files."""
        for name in self.names():
            if name.startswith(f"{folder}/"):
                path = place / name.removeprefix(f"{folder}/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.get_file(BUCKET, name))
        return place

    def create_file(self, bucket_name, file_name, *args) -> None:
        if self.on_write is not None:
            self.on_write(file_name)
        super().create_file(bucket_name, file_name, *args)

    def _write_config_to_file(self) -> None:
        """Nothing: the emulator would write all of its index at each change."""


class _Handler(server.RequestHandler):
    """The emulator's answers, with generations and moves.

    The reference of Cloud Storage's API has them so: a GET of an object's content names its
    generation in the header x-goog-generation; ifGenerationMatch of another generation is answered
    with 412 and nothing done, ifGenerationNotMatch of the same with 304. The emulator leaves out
    all three. Without the header tensorstore, which replaces a file only where nobody else did,
    cannot say what it has read: "Malformed StorageGeneration". And a POST to OLD/moveTo/o/NEW
    renames an object; where it is refused gcsfs asks again for half a minute, then copies.
    """

    _generation = "0"  # of the object that is asked for

    def __init__(self, bucket: Bucket, *args):
        self._bucket = bucket
        super().__init__(bucket, *args)

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        url = urllib.parse.urlsplit(self.path)
        self._bucket.requests.append(f"{self.command} {urllib.parse.unquote(self.path)}")
        query = dict(urllib.parse.parse_qsl(url.query))
        _, _, name = url.path.partition("/o/")
        name = urllib.parse.unquote(name) or query.get("name", "")
        self._generation = self._bucket.generation(name)
        if query.get("ifGenerationMatch", self._generation) != self._generation:
            return self._refuse(412)
        if self._generation != "0" and query.get("ifGenerationNotMatch") == self._generation:
            return self._refuse(304)
        return True

    def do_POST(self) -> None:
        old, is_move, new = self.path.partition("/moveTo/o/")
        if is_move:
            self.path = f"{old}/copyTo/b/{BUCKET}/o/{new}"
        super().do_POST()
        if is_move:
            self._bucket.delete_file(BUCKET, urllib.parse.unquote(old.partition("/o/")[2]))

    def _refuse(self, code: int) -> bool:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(code)
        self.end_headers()
        return False

    def end_headers(self) -> None:
        if self._generation != "0" and self.command == "GET":
            self.send_header("x-goog-generation", self._generation)
        super().end_headers()


class _Server(http.server.HTTPServer):
    request_queue_size = 128  # connections that wait; five are too few for tensorstore

    def handle_error(self, request, client_address) -> None:
        """gcsfs asks for an object and a folder at once, and leaves the later answer unread."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serve() -> Iterator[Bucket]:
    """Keeps the bucket gs://runs on a free port of this machine, in memory."""
    bucket = Bucket()
    buckets.create_bucket(BUCKET, bucket)
    with _Server(("127.0.0.1", 0), functools.partial(_Handler, bucket)) as listening:
        bucket.port = listening.server_port
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield bucket
        finally:
            listening.shutdown()
            thread.join()
