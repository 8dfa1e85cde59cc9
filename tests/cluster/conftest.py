"""A Ray cluster and an object storage, both of this machine and both real."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

STORAGE = {
    "AWS_ACCESS_KEY_ID": "somebody",
    "AWS_SECRET_ACCESS_KEY": "something",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="session")
def object_storage() -> Iterator[str]:
    """The address of a bucket on a server of this machine; variables lead all tools there."""
    server_module = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    import boto3

    server = server_module.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {**STORAGE, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patched.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield "s3://bucket"
    server.stop()


@pytest.fixture(scope="package")
def cluster(object_storage) -> Iterator[str]:
    """The address of a cluster of four processors, whatever this machine has."""
    if find_spec("ray") is None:
        pytest.skip("ray is not installed")
    from dewey_embed.cluster.session import Workers, connected

    with connected("local", Workers(num=4), cores=4):
        import ray  # it reads variables that were set just now

        yield ray.get_runtime_context().gcs_address
