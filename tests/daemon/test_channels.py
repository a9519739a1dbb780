"""The daemon's own channels: a wake channel that is denied, and another leader on them."""

from __future__ import annotations

import structlog

from tests.daemon.rig import NewRig, logged
from tests.kit.servers import Server
from tests.kit.waiting import until

CANNOT = "cannot listen to the wake channel"


async def test_a_denied_wake_channel_is_said(rig: NewRig, server: Server) -> None:
    """It is logged once and a reason of the status. The daemon is ready, and finds changes."""
    with server.client() as client, structlog.testing.capture_logs() as lines:
        client.execute_command("ACL", "SETUSER", "default", "-subscribe")
        async with rig() as daemon:
            await until(lambda: logged(lines, CANNOT), "a log line")
            await daemon.want("SPY")
            await until(daemon.works, "working")
            assert daemon.status["code"] == "wake_unheard"
            assert "subscribe" in daemon.status["reason"]
            assert daemon.daemon.not_ready() == []
            client.execute_command("ACL", "SETUSER", "default", "+subscribe")
            await until(lambda: daemon.status["reason"] is None, "no reason any more")
            assert logged(lines, "listening to the wake channel again")
    [line] = logged(lines, CANNOT)
    assert "subscribe" in line["why"]


async def test_a_denied_command_that_reads_the_demand_is_said(rig: NewRig, server: Server) -> None:
    """The daemon is not ready and names the command; what it could read is streamed."""
    with server.client() as client, structlog.testing.capture_logs() as lines:
        async with rig() as daemon:
            await daemon.want("SPY")
            await daemon.values.lease("DIA@me", for_s=600)
            await until(lambda: daemon.active == {"SPY", "DIA"}, "both to be live")
            client.execute_command("ACL", "SETUSER", "default", "-zrangebyscore")
            try:
                await daemon.values.want("IWM")
                await until(lambda: daemon.active == {"SPY", "DIA", "IWM"}, "all to be live")
                await until(lambda: daemon.status["code"] == "demand_unreadable", "the reason")
                assert "'zrangebyscore'" in daemon.status["reason"]
                [reason] = daemon.daemon.not_ready()
                assert reason.startswith("demand_unreadable: cannot read the demand in leases: ")
            finally:
                client.execute_command("ACL", "SETUSER", "default", "+zrangebyscore")
            await until(lambda: not daemon.daemon.not_ready(), "being ready")
            assert daemon.status["reason"] is None
    assert len(logged(lines, "cannot read a source of the demand")) == 1


async def test_two_databases_with_the_same_prefixes(rig: NewRig, server: Server) -> None:
    """Both leaders say so, in the log once and in the status, until one of them is gone."""
    second = server.url.removesuffix("/0") + "/1"
    with structlog.testing.capture_logs() as lines:
        async with rig(leader_ttl_s=3.0) as one:
            async with rig(leader_ttl_s=3.0, redis_url=second) as two:
                for daemon in (one, two):
                    await until(lambda d=daemon: d.status["code"] == "two_leaders", "the reason")  # type: ignore[misc]
                assert two.daemon.instance in one.status["reason"]
                assert one.daemon.instance in two.status["reason"]
            await until(lambda: one.status["reason"] is None, "no reason any more")
    said = [line for line in lines if "on the same channels" in line["event"]]
    assert [line["log_level"] for line in said] == ["error", "error", "info"]


async def test_two_key_prefixes_on_one_channel_prefix(rig: NewRig) -> None:
    """Daemons that differ in their key prefix alone publish on the same channels, too."""
    async with rig(leader_ttl_s=3.0) as one, rig(leader_ttl_s=3.0, key_prefix="other:") as two:
        for daemon in (one, two):
            await until(lambda d=daemon: d.status["code"] == "two_leaders", "the reason")  # type: ignore[misc]


async def test_a_leader_that_may_not_say_so_leads(rig: NewRig, server: Server) -> None:
    """A user without the right to that channel leads all the same, and does not hear it."""
    with server.client() as client:
        channels = ("resetchannels", "&spot:*", "&spotd:*")
        client.execute_command("ACL", "SETUSER", "default", *channels)
        try:
            async with rig() as daemon:
                await daemon.want("SPY")
                await until(daemon.works, "working")
                assert daemon.status["reason"] is None
        finally:
            client.execute_command("ACL", "SETUSER", "default", "allchannels")
