"""Fixtures: one broker shared by all tests that need no configuration of their own, and a factory for the rest."""

import itertools
import shutil

import pytest

from authority import Authority
from broker import IS_MOSQUITTO, Broker
from wire import Wire

_names = itertools.count()


def pytest_configure(config):
    # Missing programs are a failure of the run, never a reason to skip.
    missing = [tool for tool in ("mosquitto_pub", "mosquitto_sub", "openssl", "node", "systemd-analyze") if not shutil.which(tool)]
    if missing:
        pytest.exit(f"missing: {', '.join(missing)} (apt-get install mosquitto-clients openssl nodejs systemd)", returncode=1)


def pytest_collection_modifyitems(config, items):
    if not IS_MOSQUITTO:
        return
    for item in items:
        marker = item.get_closest_marker("differs")
        if marker:
            item.add_marker(pytest.mark.xfail(reason=marker.args[0], strict=False))
    dropped = [item for item in items if item.get_closest_marker("sol")]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if not item.get_closest_marker("sol")]


class _Shared:
    broker: Broker | None = None


@pytest.fixture(scope="session")
def _shared(tmp_path_factory):
    shared = _Shared()
    shared.directory = tmp_path_factory.mktemp("shared")
    yield shared
    if shared.broker:
        shared.broker.stop()


@pytest.fixture
def broker(_shared):
    """The shared broker with default settings. A test that kills it fails, and the next one gets a fresh one."""
    if _shared.broker is None or not _shared.broker.alive():
        _shared.broker = Broker(_shared.directory)
    yield _shared.broker
    assert _shared.broker.alive(), f"the broker died:\n{_shared.broker.log()[-4000:]}"


@pytest.fixture
def start_broker(tmp_path):
    """start_broker(config, args, cls, …): a broker of the test's own; ended when the test ends."""
    started = []

    def start(config: str = "", args=(), cls=Broker, **options) -> Broker:
        started.append(cls(tmp_path, config, args, **options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def name(request):
    """A topic prefix and client identifier no other test uses: the broker is shared."""
    return f"t{next(_names)}"


@pytest.fixture
def connect(broker):
    """connect(client_id, version, …): raw clients of the shared broker, closed when the test ends."""
    opened: list[Wire] = []

    def connect_(client_id: str = "", version: int = 4, **options) -> Wire:
        opened.append(broker.wire(version))
        opened[-1].connect(client_id, **options)
        return opened[-1]

    yield connect_
    for one in opened:
        one.close()


@pytest.fixture(params=[3, 4, 5], ids=["v31", "v311", "v5"])
def version(request):
    return request.param


@pytest.fixture(params=[0, 1, 2], ids=["qos0", "qos1", "qos2"])
def qos(request):
    return request.param
