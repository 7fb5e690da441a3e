# SPDX-License-Identifier: Apache-2.0
"""With --engine fake nothing runs in the lanes. This reads each lane's packets and answers on the command socket as
Suricata does, so that lanes become ready and counters move: all of picket but the container is real."""
import hashlib
import json
import pathlib
import re
import select
import socket
import threading

from conftest import in_netns

ETH_P_ALL = 3
SO_RCVBUFFORCE = 33


class Tool:
    def __init__(self, netns, run_folder):
        self.netns, self.path = netns, run_folder / "command.socket"
        self.packets = 0
        self.reader = in_netns(str(netns), self.open_reader)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.path.unlink(missing_ok=True)
        self.listener.bind(str(self.path))
        self.listener.listen(8)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    @staticmethod
    def open_reader():
        reader = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        reader.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        reader.bind(("tap0", ETH_P_ALL))
        reader.setblocking(False)
        return reader

    def answer(self, client, data):
        for line in data.splitlines():
            command = json.loads(line).get("command")
            message = {"pkts": self.packets, "drop": 0, "invalid-checksums": 0, "bypassed": 0}
            reply = {"return": "OK"} if command is None else {"message": message, "return": "OK"}
            client.sendall(json.dumps(reply).encode() + b"\n")

    def run(self):
        clients = []
        while not self.ended.is_set():
            try:
                ready, _, _ = select.select([self.reader, self.listener, *clients], [], [], 0.1)
            except (OSError, ValueError):
                return
            for one in ready:
                try:
                    if one is self.reader:
                        while one.recv(65536):
                            self.packets += 1
                    elif one is self.listener:
                        clients.append(one.accept()[0])
                    else:
                        data = one.recv(65536)
                        if not data:
                            clients.remove(one)
                            one.close()
                        else:
                            self.answer(one, data)
                except BlockingIOError:
                    pass
                except OSError:
                    if one in clients:
                        clients.remove(one)
                        one.close()

    def close(self):
        self.ended.set()
        self.thread.join(5)
        self.reader.close()
        self.listener.close()
        self.path.unlink(missing_ok=True)


class StandIns:
    """One tool for each unit's folder that has a lane; started and ended as these come and go."""

    def __init__(self, state, rundir):
        self.state = pathlib.Path(state)
        self.tag = "pk" + hashlib.sha256(str(rundir).encode()).hexdigest()[:4]
        self.tools = {}
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def step(self):
        for folder in self.state.glob(f"units/{self.tag}-*-suricata/run"):
            lane = re.sub(r"-suricata$", "", folder.parent.name)
            netns = pathlib.Path("/run/netns") / lane
            tool = self.tools.get(folder)
            if tool is not None and (not netns.exists() or not tool.path.exists()):
                self.tools.pop(folder).close()
            elif tool is None and netns.exists():
                try:
                    self.tools[folder] = Tool(netns, folder)
                except OSError:
                    pass  # half made or half gone: seen again in a moment
        for folder in [folder for folder in self.tools if not folder.exists()]:
            self.tools.pop(folder).close()

    def run(self):
        while not self.ended.wait(0.1):
            self.step()

    def close(self):
        self.ended.set()
        self.thread.join(10)
        for tool in self.tools.values():
            tool.close()
        self.tools.clear()
