"""alpaca-py's private names that spotd leans on, pinned: an upgrade that moves one fails here."""

import inspect
from importlib.metadata import version

import pytest
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.live import StockDataStream
from pydantic import SecretStr

from spotd.alpaca.stream import AlpacaStream

_WHY = "alpaca-py moved this; read spotd/adapters/alpaca.py against the new version"


def _stream() -> AlpacaStream:
    return AlpacaStream(
        endpoint="ws://127.0.0.1:9/v2/iex",
        api_key=SecretStr("the-key"),
        secret_key=SecretStr("the-secret"),
        on_data=lambda _: None,
    )


def test_the_version_that_was_read() -> None:
    """Private names are stable within 0.44 only; the dependency is capped likewise."""
    assert version("alpaca-py").startswith("0.44."), _WHY


def test_how_the_stream_is_built() -> None:
    """The arguments by which endpoint and keys are handed on."""
    names = list(inspect.signature(StockDataStream.__init__).parameters)
    assert names == [
        "self", "api_key", "secret_key", "raw_data", "feed", "websocket_params", "url_override",
        "data_timeout",
    ], _WHY  # fmt: skip


@pytest.mark.parametrize("name", ["_connect", "_auth", "_start_ws", "close", "_run_forever"])
def test_hooks_that_are_replaced_exist_upstream(name: str) -> None:
    """What is overridden is a coroutine without arguments upstream, and ours is another."""
    upstream = getattr(StockDataStream, name)
    assert inspect.iscoroutinefunction(upstream), _WHY
    assert list(inspect.signature(upstream).parameters) == ["self"], _WHY
    assert getattr(AlpacaStream, name) is not upstream


@pytest.mark.parametrize("name", ["run", "_subscribe", "_unsubscribe"])
def test_dangerous_ways_exist_upstream_and_are_replaced(name: str) -> None:
    """A way that is closed here must still be the way upstream."""
    upstream = getattr(StockDataStream, name)
    assert callable(upstream)
    assert getattr(AlpacaStream, name) is not upstream


def test_the_state_that_is_read() -> None:
    """Endpoint and keys lie where upstream's constructor puts them, the endpoint complete."""
    upstream = StockDataStream("the-key", "the-secret", url_override="ws://host/v2/iex")
    assert (upstream._endpoint, upstream._api_key, upstream._secret_key) == (
        "ws://host/v2/iex",
        "the-key",
        "the-secret",
    ), _WHY
    assert _stream().endpoint == "ws://127.0.0.1:9/v2/iex"


def test_our_names_collide_with_none_of_upstreams() -> None:
    """What our class adds is not something upstream already uses."""
    upstream = vars(StockDataStream("k", "s"))
    added = vars(_stream()).keys() - upstream.keys()
    assert added == {"decoder", "_on_data", "_compression", "_timeouts", "_session"}, _WHY
    for name in added | {"open", "request", "ended", "endpoint", "_live_session"}:
        assert not hasattr(StockDataStream, name), _WHY


async def _ignore(_: object) -> None:
    """A handler, as upstream wants one."""


def test_run_is_closed() -> None:
    """Upstream's run would retry wrong keys for ever and spin without symbols."""
    with pytest.raises(RuntimeError, match="own loop"):
        _stream().run()


async def test_run_forever_is_closed() -> None:
    """So is its private way in."""
    with pytest.raises(RuntimeError, match="own loop"):
        await _stream()._run_forever()


@pytest.mark.parametrize("channel", ["quotes", "trades", "bars", "trading_statuses"])
def test_subscribing_past_the_reconciliation_is_closed(channel: str) -> None:
    """Upstream's subscribe deadlocks in its own loop, and would poison every reconnect."""
    with pytest.raises(RuntimeError, match="request"):
        getattr(_stream(), f"subscribe_{channel}")(_ignore, "SPY")


@pytest.mark.parametrize("channel", ["quotes", "trades"])
def test_unsubscribing_past_the_reconciliation_is_closed(channel: str) -> None:
    """Upstream's unsubscribe raises KeyError after it has sent the message."""
    with pytest.raises(RuntimeError, match="request"):
        getattr(_stream(), f"unsubscribe_{channel}")("SPY")


def test_no_secret_in_any_repr() -> None:
    """Whatever prints the stream prints no key."""
    assert "the-" not in f"{_stream()!r} {_stream()!s}"


def test_the_rest_client_that_is_read() -> None:
    """One request at a time goes through a method that takes requests' own options."""
    one = inspect.signature(StockHistoricalDataClient._one_request)
    assert list(one.parameters) == ["self", "method", "url", "opts", "retry"], _WHY
    client = StockHistoricalDataClient("k", "s", raw_data=True, url_override="http://host")
    assert isinstance(client._retry, int), _WHY
    assert callable(client._session.request), _WHY
    client._session.close()
