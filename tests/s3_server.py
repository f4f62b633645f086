"""A moto server in this process, for unit tests of the S3 client; it proves no durability."""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Iterator

import boto3
from moto.server import ThreadedMotoServer

from storage.objects import S3Settings, S3Store
from storage.retries import Patience

QUICK = Patience(deadline_s=5.0, first_wait_s=0.01, longest_wait_s=0.05)
CREDENTIALS = {"R2_ACCESS_KEY_ID": "testkey", "R2_SECRET_ACCESS_KEY": "testsecret"}


@contextlib.contextmanager
def moto_endpoint(bucket: str = "bucket") -> Iterator[str]:
    """Start a server with one bucket on a free port; yields its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    # moto keeps its buckets in this process: those of an earlier test would be there still.
    urllib.request.urlopen(f"{endpoint}/moto-api/reset", data=b"").close()
    boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="testkey",
        aws_secret_access_key="testsecret",
    ).create_bucket(Bucket=bucket)
    try:
        yield endpoint
    finally:
        server.stop()


def store_at(endpoint: str, prefix: str = "run", **changes) -> S3Store:
    """A store with short waits and the smallest parts."""
    facts = {"part_bytes": 5 * 1024**2, "patience": QUICK, "num_parallel_parts": 2}
    return S3Store(
        S3Settings(endpoint=endpoint, bucket="bucket", prefix=prefix, **{**facts, **changes})
    )
