"""Runtimes of containers that the tests start for themselves: with sockets, folders and an image of their own."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from pathlib import Path

import grpc
from grpc_tools import protoc

from tools import run, until

IMAGE = "docker.io/local/busybox:1"


def image(folder):
    """An archive with an image that has nothing but busybox in it."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(shutil.which("busybox"), "bin/busybox")
        for name in ("sh", "sleep", "nc", "echo"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    layer = layer.getvalue()
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/bin/sleep"], "Cmd": ["36000"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": name, "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(folder / "image.tar", "w") as tar:
        for file, content in [("manifest.json", manifest), (name, config), ("layer.tar", layer)]:
            info = tarfile.TarInfo(file)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return folder / "image.tar"


def says(port, text, then=36000, after=0):
    """A command for a container: says something to the server at that port, after so many seconds."""
    return ["/bin/sh", "-c", f"sleep {after}; echo {text} | nc 127.0.0.1 {port}; sleep {then}"]


class Runtime:
    """Lives in a folder of its own with a short name, as addresses of sockets are short; leaves nothing behind."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="sidecar-", dir="/tmp"))
        self.image = image(self.folder)
        self.ids = []
        self.process = None
        self.log = open(self.folder / "log", "w")

    def start(self):
        self.process = subprocess.Popen(
            list(map(str, self.command())), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )
        try:
            until(self.answers, timeout=30)
        except BaseException:
            print((self.folder / "log").read_text()[-4000:], file=sys.stderr)
            self.leave()
            raise
        return self

    def kill(self):
        """As when it crashes. Containers go on."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def leave(self):
        """What it has started says in its command line or its root where it belongs."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if str(self.folder) in (process / "cmdline").read_text():
                    os.kill(int(process.name), signal.SIGKILL)
            except (OSError, ValueError):
                pass
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in sorted((mount for mount in mounts if mount.startswith(str(self.folder))), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def cgroups():
    """Every folder of every hierarchy, the innermost first."""
    return [Path(folder) for folder, _, _ in os.walk("/sys/fs/cgroup", topdown=False)]


def remove_cgroups(name, ids):
    """Ends what still runs in containers of ours, and removes their folders and those above, up to that of the name."""
    def remaining():
        ours = [folder for folder in cgroups() if any(id in folder.name for id in ids)]
        for folder in ours:
            for pid in (folder / "cgroup.procs").read_text().split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass
        for folder in cgroups():
            if folder in ours or name in folder.relative_to("/sys/fs/cgroup").parts[:2]:
                try:
                    folder.rmdir()
                except OSError:  # it is somebody else's, or its processes are about to end
                    pass
        return any(folder.exists() for folder in ours)

    until(lambda: not remaining())


class Containerd(Runtime):
    """With its CRI plugin."""

    def __init__(self):
        super().__init__()
        self.socket = self.folder / "containerd.sock"
        self.pods = []
        (self.folder / "config.toml").write_text(f"""
            version = 2
            root = "{self.folder}/root"
            state = "{self.folder}/state"
            [grpc]
            address = "{self.socket}"
            [plugins."io.containerd.grpc.v1.cri"]
            sandbox_image = "{IMAGE}"
            restrict_oom_score_adj = true
            stream_server_port = "0"
            [plugins."io.containerd.grpc.v1.cri".cni]
            bin_dir = "{self.folder}/cni"
            conf_dir = "{self.folder}/cni"
            [plugins."io.containerd.internal.v1.opt"]
            path = "{self.folder}/opt"
        """)
        self.start()
        self.ctr("k8s.io", "images", "import", self.image)
        self.ctr("default", "images", "import", self.image)

    def command(self):
        return ["containerd", "-c", self.folder / "config.toml"]

    def answers(self):
        try:
            return self.call("Version", self.api.messages.Nothing()) is not None
        except grpc.RpcError:  # it begins to listen before it knows its containers again
            return False

    def ctr(self, namespace, *command):
        return run("ctr", "-a", self.socket, "-n", namespace, *command)

    def call(self, method, request):
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            return getattr(self.api.stub(channel), method)(request, timeout=60)

    @property
    def api(self):
        return _cri(self.folder)

    def pod(self, name, namespace):
        """Runs a pod in the network of the host."""
        m, uid = self.api.messages, str(uuid.uuid4())
        config = m.PodSandboxConfig(
            metadata=m.PodSandboxMetadata(name=name, uid=uid, namespace=namespace),
            log_directory=str(self.folder / "logs"),
            linux=m.LinuxPodSandboxConfig(
                cgroup_parent=f"/kubepods/burstable/pod{uid}",
                security_context=m.SecurityContext(namespace_options=m.NamespaceOption(network="NODE")),
            ),
        )
        id = self.call("RunPodSandbox", m.RunPodSandboxRequest(config=config)).pod_sandbox_id
        self.pods.append(id)
        self.ids.append(id)
        return id, config

    def container(self, pod, name, command, attempt=0):
        """Runs a container in a pod, and returns its id."""
        m, (id, config) = self.api.messages, pod
        wanted = m.ContainerConfig(
            metadata=m.ContainerMetadata(name=name, attempt=attempt), image=m.ImageSpec(image=IMAGE), command=command,
            linux=m.LinuxContainerConfig(security_context=m.ContainerSecurityContext(
                namespace_options=m.NamespaceOption(network="NODE", pid="CONTAINER"))),
        )
        request = m.CreateContainerRequest(pod_sandbox_id=id, config=wanted, sandbox_config=config)
        container = self.call("CreateContainer", request)
        self.ids.append(container.container_id)
        self.call("StartContainer", container)
        return container.container_id

    def remove(self, container):
        container = self.api.messages.Container(container_id=container)
        self.call("StopContainer", container)
        deadline = time.monotonic() + 20
        while True:
            try:
                return self.call("RemoveContainer", container)
            except grpc.RpcError as error:
                # It may be told that the container has ended a moment after it has stopped it.
                if "still running" not in error.details() or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def leave(self):
        try:
            for pod in map(lambda id: self.api.messages.Pod(pod_sandbox_id=id), self.pods):
                self.call("StopPodSandbox", pod)
                self.call("RemovePodSandbox", pod)
            for task in self.ctr("default", "tasks", "ls", "-q").split():
                self.ctr("default", "tasks", "rm", "-f", task)
        except Exception as error:  # it may be what the test has left of it
            print(f"containerd: {error}", file=sys.stderr)
        super().leave()
        remove_cgroups("kubepods", self.ids)
        remove_cgroups("default", [])


_compiled = {}


def _cri(folder):
    """The messages and the stub of cri.proto, compiled once."""
    if not _compiled:
        here = Path(__file__).parent
        out = tempfile.mkdtemp(prefix="sidecar-cri-", dir="/tmp")
        assert protoc.main(["protoc", f"-I{here}", f"--python_out={out}", f"--grpc_python_out={out}", "cri.proto"]) == 0
        sys.path.insert(0, out)
        import cri_pb2, cri_pb2_grpc

        sys.path.remove(out)
        shutil.rmtree(out)
        _compiled.update(messages=cri_pb2, stub=cri_pb2_grpc.RuntimeServiceStub)
    return type("Api", (), {"messages": _compiled["messages"], "stub": staticmethod(_compiled["stub"])})


class Docker(Runtime):
    """With a containerd that it starts itself."""

    def __init__(self):
        super().__init__()
        self.socket = self.folder / "docker.sock"
        (self.folder / "daemon.json").write_text("{}")
        self.start()
        self.docker("load", "-i", self.image)

    def command(self):
        return [
            "dockerd", "-H", f"unix://{self.socket}", "--data-root", self.folder / "data", "--exec-root",
            self.folder / "exec", "-p", self.folder / "pid", "--config-file", self.folder / "daemon.json", "--iptables=false",
            "--ip6tables=false", "--bridge=none", "--storage-driver=vfs", "--oom-score-adjust=0", "--live-restore",
        ]

    def answers(self):
        return subprocess.run(["docker", "-H", f"unix://{self.socket}", "info"], capture_output=True).returncode == 0

    def docker(self, *command):
        return run("docker", "-H", f"unix://{self.socket}", *command).strip()

    def container(self, name, command):
        options = ["--network=host", "--name", name, "--entrypoint", command[0]]
        self.ids.append(self.docker("run", "-d", *options, IMAGE, *command[1:]))
        return self.ids[-1]

    def leave(self):
        try:
            for id in self.docker("ps", "-aq").split():
                self.docker("rm", "-f", id)
        except AssertionError as error:
            print(f"docker: {error}", file=sys.stderr)
        super().leave()
        remove_cgroups("docker", self.ids)


class Podman(Runtime):
    """Which has no daemon."""

    def __init__(self):
        super().__init__()
        self.storage = self.folder / "storage"
        self.podman("load", "-i", self.image)

    def podman(self, *command):
        f = self.folder
        options = ["--root", self.storage, "--runroot", f / "run", "--tmpdir", f / "tmp", "--storage-driver", "vfs",
                   "--cgroup-manager", "cgroupfs", "--runtime", "runc", "--events-backend", "file"]
        return run("podman", *options, *command).strip()

    def container(self, name, command):
        options = ["--network=host", "--name", name, "--log-driver=none", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--entrypoint", command[0]]
        self.ids.append(self.podman("run", "-d", *options, IMAGE, *command[1:]))
        return self.ids[-1]

    def leave(self):
        try:
            self.podman("rm", "-fa", "-t", "0")
        except AssertionError as error:
            print(f"podman: {error}", file=sys.stderr)
        super().leave()
        remove_cgroups("libpod_parent", self.ids)
