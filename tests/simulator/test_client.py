"""The G-SDK tutorial's five functions against `gsdk2mqtt simulate`, by a client of another make.

Run: pip install -r tests/simulator/requirements.txt && cargo build
     python3 tests/simulator/test_client.py
The program is target/debug/gsdk2mqtt, or what GSDK2MQTT_BIN names. Stubs are made from proto/.
"""

import importlib
import json
import os
import pathlib
import queue
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

import grpc
import jsonschema
from google.protobuf import any_pb2  # noqa: F401  (registers Any for the details)
from grpc_status import rpc_status
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("GSDK2MQTT_BIN", str(ROOT / "target/debug/gsdk2mqtt"))
WORK = tempfile.TemporaryDirectory(prefix="gsdk-simulator-")
STUBS = pathlib.Path(WORK.name)


def make_stubs(folder, package_prefix):
    """Stubs from our proto; with an empty prefix as of the older package names."""
    source = STUBS / ("proto-" + folder)
    (source / folder).mkdir(parents=True)
    for path in sorted((ROOT / "proto/gsdk").glob("*.proto")):
        text = path.read_text()
        text = re.sub(r"^package gsdk\.", "package " + package_prefix, text, flags=re.M)
        text = text.replace('import "gsdk/', 'import "%s/' % folder)
        (source / folder / path.name).write_text(text)
    files = [str(path) for path in sorted((source / folder).glob("*.proto"))]
    arguments = ["-I" + str(source), "--python_out=" + str(STUBS)]
    arguments += ["--grpc_python_out=" + str(STUBS)]
    assert protoc.main(["protoc"] + arguments + files) == 0
    names = ("connect", "connect_master", "device", "err", "event", "gateway", "login")
    modules = {}
    for name in names:
        modules[name] = importlib.import_module("%s.%s_pb2" % (folder, name))
        modules[name + "_rpc"] = importlib.import_module("%s.%s_pb2_grpc" % (folder, name))
    return modules


sys.path.insert(0, str(STUBS))
NEWER = make_stubs("newer", "gsdk.")
OLDER = make_stubs("older", "")


class Gateway:
    """A simulated gateway as its own process."""

    def __init__(self, *arguments):
        self.certs = tempfile.mkdtemp(dir=WORK.name)
        command = [BINARY, "simulate", "--listen", "127.0.0.1:0", "--certs", self.certs]
        command += ["--reconnect-interval", "1", "--dial-interval", "0.5", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.address = re.search(r" on (\S+)", line).group(1)
        self.lines = []
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout))
        self.reader.start()

    def file(self, name):
        return pathlib.Path(self.certs, name).read_bytes()

    def channel(self, client=None):
        """A channel that trusts ca.crt; `client` names a certificate for mutual TLS."""
        for _ in range(100):
            if pathlib.Path(self.certs, "ca.crt").exists():
                break
            time.sleep(0.05)
        key = self.file(client + ".key") if client else None
        chain = self.file(client + ".crt") if client else None
        credentials = grpc.ssl_channel_credentials(self.file("ca.crt"), key, chain)
        return grpc.secure_channel(self.address, credentials)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        self.reader.join(10)
        self.process.stdout.close()


class Statuses:
    """The status stream, read by a thread of its own as the tutorial does."""

    def __init__(self, stub, messages):
        self.seen = queue.Queue()
        # The response headers come with the first change only, so nothing waits for them.
        self.call = stub.SubscribeStatus(messages.SubscribeStatusRequest(queueSize=128))
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            for change in self.call:
                self.seen.put(change)
        except grpc.RpcError:
            pass

    def until(self, device, status, seconds=10):
        """Waits for this status of this device; what else comes is passed over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                change = self.seen.get(timeout=end - time.monotonic())
            except queue.Empty:
                break
            if change.deviceID == device and change.status == status:
                assert abs(change.timestamp - time.time()) < 5
                return
        raise AssertionError("device %d never told status %d" % (device, status))


class Session:
    """The five functions; subclasses say which package names."""

    stubs = None

    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.channel = cls.gateway.channel()
        cls.m = cls.stubs["connect"]
        cls.stub = cls.stubs["connect_rpc"].ConnectStub(cls.channel)
        cls.statuses = Statuses(cls.stub, cls.m)
        # A device needs up to 1.5 s to answer a search.
        cls.site = cls.search(1500)

    @classmethod
    def tearDownClass(cls):
        cls.statuses.call.cancel()
        cls.channel.close()
        cls.gateway.stop()

    @classmethod
    def search(cls, milliseconds):
        request = cls.m.SearchDeviceRequest(timeout=milliseconds)
        found = cls.stub.SearchDevice(request, timeout=5).deviceInfos
        return sorted(found, key=lambda one: one.deviceID)

    def plain(self):
        return [one for one in self.site if not one.useSSL and not one.connectionMode]

    def listed(self):
        devices = self.stub.GetDeviceList(self.m.GetDeviceListRequest()).deviceInfos
        return {device.deviceID: device for device in devices}

    def connect(self, device, ssl=False):
        info = self.m.ConnectInfo(IPAddr=device.IPAddr, port=device.port, useSSL=ssl)
        return self.stub.Connect(self.m.ConnectRequest(connectInfo=info), timeout=10).deviceID

    def failure(self, call):
        with self.assertRaises(grpc.RpcError) as caught:
            call()
        return caught.exception

    def test_1_search(self):
        begun = time.monotonic()
        some = len(self.search(700))
        self.assertGreaterEqual(time.monotonic() - begun, 0.7)
        self.assertTrue(0 < some < 20, some)
        self.assertEqual(len(self.search(700)), some, "the same each time")
        self.assertEqual(self.search(5), [], "the time is in milliseconds")
        found = self.site
        self.assertEqual(len(found), 20)
        self.assertTrue(any(one.useSSL for one in found))
        self.assertTrue(any(one.connectionMode == self.m.DEVICE_TO_SERVER for one in found))
        self.assertTrue(all(one.port == 51211 and one.type for one in found))

    def test_2_connect_synchronously(self):
        device = self.plain()[0]
        self.assertEqual(self.connect(device), device.deviceID)
        self.statuses.until(device.deviceID, self.m.TCP_CONNECTED)
        entry = self.listed()[device.deviceID]
        self.assertEqual((entry.status, entry.autoReconnect), (self.m.TCP_CONNECTED, False))
        error = self.failure(lambda: self.connect(device))
        self.assertEqual(error.code(), grpc.StatusCode.ALREADY_EXISTS)
        self.stub.Disconnect(self.m.DisconnectRequest(deviceIDs=[device.deviceID]))
        self.statuses.until(device.deviceID, self.m.DISCONNECTED)
        self.assertNotIn(device.deviceID, self.listed())
        nobody = self.m.SearchDeviceInfo(IPAddr="192.168.77.77", port=51211)
        error = self.failure(lambda: self.connect(nobody))
        self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE)
        secure = next(one for one in self.site if one.useSSL and not one.connectionMode)
        self.failure(lambda: self.connect(secure, ssl=False))
        self.assertEqual(self.connect(secure, ssl=True), secure.deviceID)
        self.statuses.until(secure.deviceID, self.m.TLS_CONNECTED)

    def test_3_asynchronous_connections(self):
        device = self.plain()[1]
        infos = [
            self.m.AsyncConnectInfo(
                deviceID=device.deviceID, IPAddr=device.IPAddr, port=device.port, useSSL=False
            ),
            self.m.AsyncConnectInfo(deviceID=4711, IPAddr="", port=51211, useSSL=False),
        ]
        self.stub.AddAsyncConnection(self.m.AddAsyncConnectionRequest(connectInfos=infos))
        self.assertTrue(self.listed()[4711].autoReconnect)
        self.statuses.until(device.deviceID, self.m.TRY_TO_CONNECT)
        self.statuses.until(device.deviceID, self.m.TCP_CONNECTED)
        self.statuses.until(4711, self.m.TCP_CANNOT_CONNECT)
        self.stub.Disconnect(self.m.DisconnectRequest(deviceIDs=[device.deviceID]))
        self.statuses.until(device.deviceID, self.m.DISCONNECTED)
        self.statuses.until(device.deviceID, self.m.TCP_CONNECTED)
        ids = [device.deviceID, 4711]
        self.stub.DeleteAsyncConnection(self.m.DeleteAsyncConnectionRequest(deviceIDs=ids))
        self.statuses.until(device.deviceID, self.m.DISCONNECTED)
        self.assertFalse(set(ids) & set(self.listed()))

    def test_4_accept_devices(self):
        deadline = time.monotonic() + 10
        pending = []
        while not pending and time.monotonic() < deadline:
            answer = self.stub.GetPendingList(self.m.GetPendingListRequest())
            pending = answer.deviceInfos
            time.sleep(0.05)
        self.assertTrue(pending)
        one = pending[0]
        self.assertLess(abs(one.lastTry - time.time()), 5)
        current = self.stub.GetAcceptFilter(self.m.GetAcceptFilterRequest()).filter
        self.assertFalse(current.allowAll or current.deviceIDs)
        secure = {found.deviceID: found.useSSL for found in self.site}[one.deviceID]
        wanted = self.m.TLS_CONNECTED if secure else self.m.TCP_CONNECTED
        current.deviceIDs.append(one.deviceID)
        self.stub.SetAcceptFilter(self.m.SetAcceptFilterRequest(filter=current))
        self.statuses.until(one.deviceID, wanted)
        entry = self.listed()[one.deviceID]
        self.assertEqual(entry.connectionMode, self.m.DEVICE_TO_SERVER)
        rest = self.stub.GetPendingList(self.m.GetPendingListRequest()).deviceInfos
        self.assertNotIn(one.deviceID, [device.deviceID for device in rest])

    def test_5_mode_ssl_and_disconnect(self):
        device = self.plain()[2]
        self.connect(device)
        ids = [device.deviceID, 4711]
        request = self.m.EnableSSLMultiRequest(deviceIDs=ids)
        error = self.failure(lambda: self.stub.EnableSSLMulti(request))
        status = rpc_status.from_call(error)
        details = self.stubs["err"].MultiErrorResponse()
        self.assertTrue(status.details[0].Unpack(details))
        self.assertEqual([one.deviceID for one in details.deviceErrors], [4711])
        self.statuses.until(device.deviceID, self.m.DISCONNECTED)
        self.failure(lambda: self.connect(device, ssl=False))
        self.connect(device, ssl=True)
        self.stub.DisableSSL(self.m.DisableSSLRequest(deviceID=device.deviceID))
        self.connect(device, ssl=False)
        request = self.m.SetConnectionModeMultiRequest(
            deviceIDs=[device.deviceID], connectionMode=self.m.DEVICE_TO_SERVER
        )
        self.stub.SetConnectionModeMulti(request)
        self.statuses.until(device.deviceID, self.m.TCP_NOT_ALLOWED)
        allow = self.m.AcceptFilter(allowAll=True)
        self.stub.SetAcceptFilter(self.m.SetAcceptFilterRequest(filter=allow))
        self.statuses.until(device.deviceID, self.m.TCP_CONNECTED)
        request = self.m.SetConnectionModeRequest(
            deviceID=device.deviceID, connectionMode=self.m.SERVER_TO_DEVICE
        )
        self.stub.SetConnectionMode(request)
        self.connect(device)
        self.stub.SetAcceptFilter(self.m.SetAcceptFilterRequest(filter=self.m.AcceptFilter()))
        self.stub.DisconnectAll(self.m.DisconnectAllRequest())
        self.assertEqual(list(self.listed()), [])

    def test_6_what_a_device_says_of_itself(self):
        device = self.plain()[4]
        d, e = self.stubs["device"], self.stubs["event"]
        devices = self.stubs["device_rpc"].DeviceStub(self.channel)
        events = self.stubs["event_rpc"].EventStub(self.channel)
        request = d.GetInfoRequest(deviceID=device.deviceID)
        error = self.failure(lambda: devices.GetInfo(request))
        self.assertEqual(error.code(), grpc.StatusCode.NOT_FOUND)
        self.connect(device)
        info = devices.GetInfo(request).info
        self.assertRegex(info.MACAddr, "^00:17:fc(:[0-9a-f]{2}){3}$")
        self.assertTrue(info.modelName and info.firmwareVersion, info)
        request = d.GetCapabilityInfoRequest(deviceID=device.deviceID)
        capabilities = devices.GetCapabilityInfo(request).capInfo
        self.assertEqual(capabilities.type, device.type)
        self.assertTrue(capabilities.cardSupported)
        ids = e.EnableMonitoringMultiRequest(deviceIDs=[device.deviceID])
        events.EnableMonitoringMulti(ids)
        logs = events.SubscribeRealtimeLog(e.SubscribeRealtimeLogRequest(queueSize=16))
        request = e.GetLogRequest(deviceID=device.deviceID, startEventID=0, maxNumOfLog=16)
        codes = [log.eventCode for log in events.GetLog(request).events]
        self.assertEqual(codes, [0x3B00])
        self.stub.Disconnect(self.m.DisconnectRequest(deviceIDs=[device.deviceID]))
        self.connect(device)
        log = next(logs)
        self.assertEqual((log.deviceID, log.eventCode), (device.deviceID, 0x3B00))
        logs.cancel()
        request = e.DisableMonitoringRequest(deviceID=device.deviceID)
        events.DisableMonitoring(request)
        self.stub.Disconnect(self.m.DisconnectRequest(deviceIDs=[device.deviceID]))

    def test_7_what_a_gateway_does_not_serve(self):
        prefix = self.m.DESCRIPTOR.package.replace("connect", "")
        for path, message in [
            ("user.User/GetList", "unknown service %suser.User"),
            ("device.Device/GetTime", "unknown method GetTime for service %sdevice.Device"),
        ]:
            call = self.channel.unary_unary("/" + prefix + path)
            error = self.failure(lambda: call(b""))
            self.assertEqual(error.code(), grpc.StatusCode.UNIMPLEMENTED)
            self.assertEqual(error.details(), message % prefix)

    def test_8_large_metadata(self):
        request = self.m.GetDeviceListRequest()
        self.stub.GetDeviceList(request, metadata=[("x", "y" * 20_000)])
        large = [("x-%d" % number, "y" * 16_000) for number in range(80)]
        error = self.failure(lambda: self.stub.GetDeviceList(request, metadata=large))
        self.assertEqual(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)

    def test_9_what_a_client_gets_wrong(self):
        wrong = grpc.StatusCode.INVALID_ARGUMENT
        bad = self.m.SearchDeviceInfo(IPAddr="nowhere", port=51211)
        self.assertEqual(self.failure(lambda: self.connect(bad)).code(), wrong)
        bad = self.m.SearchDeviceInfo(IPAddr="192.168.0.101", port=70000)
        self.assertEqual(self.failure(lambda: self.connect(bad)).code(), wrong)
        filters = self.m.AcceptFilter(subnetMasks=["255.255.300.0"])
        request = self.m.SetAcceptFilterRequest(filter=filters)
        self.assertEqual(self.failure(lambda: self.stub.SetAcceptFilter(request)).code(), wrong)
        request = self.m.DisconnectRequest(deviceIDs=[4711, 4711])
        error = self.failure(lambda: self.stub.Disconnect(request))
        self.assertEqual(error.code(), grpc.StatusCode.NOT_FOUND)
        # Under the gateway's limit of 75,497,472 bytes, and over it.
        many = self.m.DisconnectRequest(deviceIDs=[2**32 - 1] * 15_000_000)
        self.assertGreater(many.ByteSize(), 74_000_000)
        error = self.failure(lambda: self.stub.Disconnect(many))
        self.assertEqual(error.code(), grpc.StatusCode.NOT_FOUND)
        many.deviceIDs.extend([2**32 - 1] * 1_000_000)
        error = self.failure(lambda: self.stub.Disconnect(many))
        self.assertEqual(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)


class NewerPackages(Session, unittest.TestCase):
    """gsdk.connect, V1.5 and later."""

    stubs = NEWER


class OlderPackages(Session, unittest.TestCase):
    """connect, V1.4 and earlier."""

    stubs = OLDER


class Master(unittest.TestCase):
    """Login and a call by way of a master gateway."""

    def test_login_list_and_connect(self):
        gateway = Gateway("--gateways", "2", "--devices", "5")
        try:
            channel = gateway.channel("tenant")
            login, connect = NEWER["login"], NEWER["connect_master"]
            request = login.LoginRequest(tenantCert=gateway.file("tenant.crt").decode())
            token = NEWER["login_rpc"].LoginStub(channel).Login(request).jwtToken
            metadata = [("token", token)]
            gateways = NEWER["gateway_rpc"].GatewayStub(channel)
            ids = gateways.GetList(NEWER["gateway"].GetListRequest(), metadata=metadata).gatewayIDs
            self.assertEqual(list(ids), ["gateway1", "gateway2"])
            stub = NEWER["connect_master_rpc"].ConnectMasterStub(channel)
            request = connect.SearchDeviceRequest(gatewayID="gateway2", timeout=1500)
            found = stub.SearchDevice(request, metadata=metadata).deviceInfos
            self.assertEqual(len(found), 5)
            one = next(d for d in found if not d.useSSL and not d.connectionMode)
            info = NEWER["connect"].ConnectInfo(IPAddr=one.IPAddr, port=one.port)
            dial = connect.ConnectRequest(gatewayID="gateway2", connectInfo=info)
            self.assertEqual(stub.Connect(dial, metadata=metadata).deviceID, one.deviceID)
            device = NEWER["device"]
            devices = NEWER["device_rpc"].DeviceStub(channel)
            ask = device.GetInfoRequest(deviceID=one.deviceID)
            self.assertTrue(devices.GetInfo(ask, metadata=metadata).info.modelName)
            with self.assertRaises(grpc.RpcError) as caught:
                stub.SearchDevice(request)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAUTHENTICATED)
            channel.close()
        finally:
            gateway.stop()


class Printed(unittest.TestCase):
    """The first call works as `simulate` prints it, in a shell in the source."""

    def answers(self, *arguments):
        """The answers to the printed commands."""
        gateway = Gateway(*arguments)
        path = tempfile.mkdtemp(dir=WORK.name)
        os.symlink(BINARY, path + "/gsdk2mqtt")
        if not shutil.which("grpcurl"):
            script = pathlib.Path(path, "grpcurl")
            helper = ROOT / "tests/simulator/grpcurl.py"
            script.write_text('#!/bin/sh\nexec "%s" "%s" "$@"\n' % (sys.executable, helper))
            script.chmod(0o755)
        try:
            commands, deadline = None, time.monotonic() + 10
            # Complete once nothing more comes.
            while not commands or commands != self.commands(gateway):
                self.assertLess(time.monotonic(), deadline, gateway.lines)
                commands = self.commands(gateway)
                time.sleep(0.3)
            environment = {**os.environ, "PATH": path + ":" + os.environ["PATH"]}
            run = subprocess.run(
                ["sh", "-e", "-c", commands],
                cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
            )
            self.assertEqual(run.returncode, 0, run)
            return run.stdout
        finally:
            gateway.stop()

    @staticmethod
    def commands(gateway):
        return "".join(gateway.lines).partition("a first call")[2].partition("\n")[2]

    def test_of_a_device_gateway(self):
        answers = self.answers("--devices", "3")
        self.assertEqual(answers.count("540092578"), 2, answers)

    def test_of_an_older_gateway(self):
        answers = self.answers("--devices", "3", "--packages", "bare")
        self.assertEqual(answers.count("540092578"), 1, answers)

    def test_of_a_master(self):
        answers = self.answers("--gateways", "2", "--devices", "3")
        self.assertEqual(json.loads(answers), {"gatewayIDs": ["gateway1", "gateway2"]})


class ControlApi(unittest.TestCase):
    """The schema takes what the API takes, and refuses what it refuses."""

    GOOD = [
        {"do": "power_off", "devices": {"random": 1}},
        {"do": "power_on"},
        {"do": "drop", "devices": "all"},
        {"do": "silent", "devices": [540092578], "status": "tls_connected"},
        {"do": "tell", "devices": [4711], "status": 515},
        {"do": "repeat", "devices": {"type": "bioentry_w2"}},
        {"do": "device_network", "up": True},
        {"do": "clock_skew", "seconds": -7},
        {"do": "manage"},
        {"do": "add_device", "id": 9, "type": "xpass2", "ip": "10.9.9.9", "mode": "device_to_server"},
        {"do": "remove_device", "devices": [9]},
        {"do": "firmware", "version": "1.2.3"},
        {"do": "refuse_registration", "devices": [9], "on": True},
        {"do": "storm", "changes": 4, "per_second": 100, "pattern": "random", "seed": 3},
        {"do": "client_network", "up": True},
        {"do": "freeze", "on": False},
        {"do": "end_streams", "code": "resource_exhausted"},
        {"do": "fail", "method": "Connect", "code": 14, "message": "no", "times": 2},
        {"do": "heal"},
        {"do": "latency", "ms": 0},
        {"do": "late_answers", "ms": 0},
        {"do": "packages", "serve": "both"},
        {"do": "lazy_headers", "on": True},
        {"do": "gateway_link", "gateway": "gateway1", "up": True},
        {"do": "gateway_listed", "gateway": "gateway1", "listed": True},
        {"do": "expire_tokens"},
        {"do": "cut_connections"},
        {"do": "restart", "down_s": 0},
    ]
    BAD = [
        {},
        {"do": "explode"},
        {"do": "power_off", "device": [1]},
        {"do": "power_off", "devices": "some"},
        {"do": "power_off", "devices": {"random": -1}},
        {"do": "freeze"},
        {"do": "clock_skew", "seconds": "many"},
        {"do": "storm", "changes": 4, "speed": 9},
        {"do": "packages", "serve": "newest"},
        {"do": "latency", "ms": -1},
    ]

    def ask(self, path, body=None):
        request = urllib.request.Request("http://%s%s" % (self.api, path), body)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def test_schema_and_api_agree(self):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.api = "127.0.0.1:%d" % probe.getsockname()[1]
        gateway = Gateway("--manage", "--control", self.api)
        try:
            _, schema = self.ask("/schema")
            validator = jsonschema.Draft202012Validator(schema)
            validator.check_schema(schema)
            _, overview = self.ask("/")
            self.assertEqual({fault["do"] for fault in self.GOOD}, set(overview["faults"]))
            for fault in self.GOOD + self.BAD:
                with self.subTest(fault=fault):
                    code, answer = self.ask("/fault", json.dumps(fault).encode())
                    self.assertEqual(code, 200 if fault in self.GOOD else 400, answer)
                    self.assertEqual(validator.is_valid(fault), code == 200)
        finally:
            gateway.stop()


if __name__ == "__main__":
    unittest.main(verbosity=2)
