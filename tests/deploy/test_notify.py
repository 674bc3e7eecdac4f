"""Notifications to systemd: ready, alive, status, stopping; a socket stands in for systemd."""

import os
import pathlib
import signal
import socket
import subprocess
import tempfile

from programs import BRIDGE, PATIENCE_S, ROOT, free_port, running


def main():
    with tempfile.TemporaryDirectory() as folder, socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        folder = pathlib.Path(folder)
        manager.bind(str(folder / "notify"))
        manager.settimeout(PATIENCE_S)

        def notified():
            return manager.recv(99).rstrip(b"\n")

        def pings(count):
            """The next notifications up to so many pings, which are left out."""
            others = []
            while count:
                said = notified()
                count -= said == b"WATCHDOG=1"
                others += [said] * (said != b"WATCHDOG=1")
            return others

        ca = folder / "certs/ca.crt"
        with running(BRIDGE, "simulate", "--listen", "127.0.0.1:0", "--certs", folder / "certs",
                     log=folder / "simulator.log") as simulator:
            while not ca.exists():
                assert simulator.poll() is None, (folder / "simulator.log").read_text()
        told = os.environ | {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "300000"}
        (folder / "config.toml").write_text(
            f'state_dir = "{folder}/state"\n[mqtt]\nurl = "mqtt://127.0.0.1:1"\n'
            f'[http]\nlisten = "127.0.0.1:{free_port()}"\n[gateways.lobby]\n'
            f'address = "127.0.0.1:1"\nca_file = "{ca}"\n')
        with running(BRIDGE, "run", "--config", folder / "config.toml", env=told,
                     log=folder / "bridge.log") as bridge:
            # Neither broker nor gateway is there: that is no reason to be started again.
            assert notified() == b"READY=1"
            assert pings(3) == [b"STATUS=1 gateway, 0 of 0 connected"]
            # systemctl kill -s HUP, or an old reload: neither ends it.
            bridge.send_signal(signal.SIGHUP)
            assert pings(3) == []
            bridge.terminate()
            while (said := notified()) != b"STOPPING=1":
                assert said == b"WATCHDOG=1", said
            assert bridge.wait(PATIENCE_S) == 0
    print("notify: ready, alive, status, stopping")


def unit():
    file = ROOT / "deploy/systemd/gsdk2mqtt.service"
    text = file.read_text()
    for must in ("Type=notify", "WatchdogSec=", "StateDirectory=gsdk2mqtt", "Restart=always"):
        assert must in text, must
    assert "\nExecReload" not in text, "there is no reload"
    assert "\nProcSubset=pid" not in text, "it hides the boot ID, so that every crash ends a chain"
    looked = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", file],
        capture_output=True, text=True)
    assert looked.returncode == 0 and "exposure level" in looked.stdout, (
        looked.stdout[-500:] + looked.stderr)
    print(looked.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    unit()
    main()
