"""Pins the private names of alpaca-py that spotd uses: an upgrade that moves one fails here."""

import inspect
from importlib.metadata import version

import pytest
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.live import StockDataStream
from alpaca.data.live.websocket import DataStream
from pydantic import SecretStr

from spotd.alpaca.stream import AlpacaStream

_WHY = "alpaca-py moved this; read spotd/alpaca/stream.py and rest.py against the new version"


def _stream() -> AlpacaStream:
    return AlpacaStream(
        endpoint="ws://127.0.0.1:9/v2/iex",
        api_key=SecretStr("the-key"),
        secret_key=SecretStr("the-secret"),
        on_data=lambda _: None,
    )


def test_the_version_that_was_read() -> None:
    """The dependency is capped at 0.44, within which private names are stable."""
    assert version("alpaca-py").startswith("0.44."), _WHY


def test_how_the_stream_is_built() -> None:
    """Upstream's constructor takes the endpoint and the keys by these names."""
    names = list(inspect.signature(StockDataStream.__init__).parameters)
    assert names == [
        "self", "api_key", "secret_key", "raw_data", "feed", "websocket_params", "url_override",
        "data_timeout",
    ], _WHY  # fmt: skip


@pytest.mark.parametrize("name", ["_connect", "_auth", "_start_ws", "close", "_run_forever"])
def test_hooks_that_are_replaced_exist_upstream(name: str) -> None:
    """A method that is overridden is a coroutine without arguments upstream."""
    upstream = getattr(StockDataStream, name)
    assert inspect.iscoroutinefunction(upstream), _WHY
    assert list(inspect.signature(upstream).parameters) == ["self"], _WHY
    assert getattr(AlpacaStream, name) is not upstream


@pytest.mark.parametrize("name", ["run", "_subscribe", "_unsubscribe"])
def test_methods_that_are_closed_exist_upstream(name: str) -> None:
    """A method that is closed here is still the one that upstream calls."""
    upstream = getattr(StockDataStream, name)
    assert callable(upstream)
    assert getattr(AlpacaStream, name) is not upstream


def test_the_state_that_is_read() -> None:
    """Upstream's constructor stores the keys and the complete endpoint under these names."""
    upstream = StockDataStream("the-key", "the-secret", url_override="ws://host/v2/iex")
    assert (upstream._endpoint, upstream._api_key, upstream._secret_key) == (
        "ws://host/v2/iex",
        "the-key",
        "the-secret",
    ), _WHY
    assert _stream().endpoint == "ws://127.0.0.1:9/v2/iex"


_REPLACED = {
    "__init__",
    "_auth",
    "_connect",
    "_run_forever",
    "_start_ws",
    "_subscribe",
    "_unsubscribe",
    "close",
    "run",
}


def test_our_names_do_not_collide_with_upstreams() -> None:
    """Our class replaces these methods of upstream only, and none of its attributes."""
    assert {
        name for name in vars(AlpacaStream) if name in vars(StockDataStream) | vars(DataStream)
    } - {"__doc__", "__module__"} == _REPLACED, _WHY
    upstream, ours = vars(StockDataStream("the-key", "the-secret")), vars(_stream())
    assert {name: type(value) for name, value in upstream.items()} == {
        name: type(ours[name]) for name in upstream
    }, _WHY
    for name in ours.keys() - upstream.keys():
        assert not hasattr(StockDataStream, name), _WHY


async def _ignore(_: object) -> None:
    """Handle nothing, with the signature that upstream asks for."""


def test_run_is_closed() -> None:
    """Upstream's ``run``, which retries wrong keys and spins without symbols, cannot be called."""
    with pytest.raises(RuntimeError, match="own loop"):
        _stream().run()


async def test_run_forever_is_closed() -> None:
    """Upstream's ``_run_forever``, which ``run`` runs, cannot be called either."""
    with pytest.raises(RuntimeError, match="own loop"):
        await _stream()._run_forever()


@pytest.mark.parametrize("channel", ["quotes", "trades", "bars", "trading_statuses"])
def test_subscribing_is_closed(channel: str) -> None:
    """Upstream's subscribe, which deadlocks in its own loop, cannot be called."""
    with pytest.raises(RuntimeError, match="request"):
        getattr(_stream(), f"subscribe_{channel}")(_ignore, "SPY")


@pytest.mark.parametrize("channel", ["quotes", "trades"])
def test_unsubscribing_is_closed(channel: str) -> None:
    """Upstream's unsubscribe, which raises KeyError after it sent its message, cannot be called."""
    with pytest.raises(RuntimeError, match="request"):
        getattr(_stream(), f"unsubscribe_{channel}")("SPY")


def test_no_secret_in_any_repr() -> None:
    """A stream that is printed shows no key."""
    assert "the-" not in f"{_stream()!r} {_stream()!s}"


def test_the_rest_client() -> None:
    """Each request goes through one method, which takes the options of ``requests``."""
    one = inspect.signature(StockHistoricalDataClient._one_request)
    assert list(one.parameters) == ["self", "method", "url", "opts", "retry"], _WHY
    client = StockHistoricalDataClient("k", "s", raw_data=True, url_override="http://host")
    assert isinstance(client._retry, int), _WHY
    assert callable(client._session.request), _WHY
    client._session.close()
