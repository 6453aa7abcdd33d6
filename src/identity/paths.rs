//! What the path of a cgroup tells of who works in it. Pure.

use std::borrow::Cow;

/// What a path says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// The innermost container.
    pub container: Option<Container<'a>>,
    /// The innermost pod of Kubernetes, as its API writes the uid.
    pub pod_uid: Option<Cow<'a, str>>,
    /// The deepest systemd service; none in a container, where it would be a service of that container's own systemd.
    pub service: Option<&'a str>,
}

/// How a container is called in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container<'a> {
    /// By a number, of which a runtime knows the name.
    Id(&'a str),
    /// By its name (LXC, systemd-nspawn), perhaps in systemd's spelling: see [`unescape`].
    Name(&'a str),
}

impl<'a> Container<'a> {
    /// As it stands in the path.
    pub fn as_str(self) -> &'a str {
        match self {
            Container::Id(text) | Container::Name(text) => text,
        }
    }
}

/// Reads a path such as `/system.slice/docker-<id>.scope` from the root of its hierarchy.
pub fn parse(path: &str) -> Parsed<'_> {
    let mut parsed = Parsed::default();
    let mut parent = "";
    for folder in path.split('/') {
        if let Some(uid) = pod_uid(folder) {
            parsed.pod_uid = Some(uid);
        }
        if let Some(container) = container(folder, parent) {
            parsed.container = Some(container);
            parsed.service = None;
        } else if folder.ends_with(".service") && parsed.container.is_none() {
            parsed.service = Some(folder);
        }
        parent = folder;
    }
    parsed
}

/// What may be the namespace and the id of a container of containerd that was not made by Kubernetes or Docker: it chooses
/// the path `/<namespace>/<id>`, and any name may be an id. Only containerd can tell whether it is one.
pub fn containerd_task(path: &str) -> Option<(&str, &str)> {
    let mut folders = path.strip_prefix('/')?.split('/');
    let (namespace, id) = (folders.next()?, folders.next()?);
    let is_unit = |name: &str| [".slice", ".scope", ".service"].iter().any(|kind| name.ends_with(kind));
    (!namespace.is_empty() && !id.is_empty() && !is_unit(namespace) && !is_unit(id)).then_some((namespace, id))
}

fn container<'a>(folder: &'a str, parent: &str) -> Option<Container<'a>> {
    // containerd that is told a systemd slice but to manage cgroups itself: `<slice>:cri-containerd:<id>`.
    let name = folder.rsplit(':').next()?;
    let unit = name.strip_suffix(".scope").unwrap_or(name);
    let (prefix, id) = unit.rsplit_once('-').unwrap_or(("", unit));
    if is_hex(id, 64) {
        // The monitor of a container is none, nor is a pod of podman, of which containers are part.
        let monitor = prefix.ends_with("conmon");
        let pod = prefix.is_empty() && parent == "libpod_parent";
        return (!monitor && !pod).then_some(Container::Id(id));
    }
    // Amazon ECS: `<task>-<number>`.
    if is_hex(prefix, 32) && !id.is_empty() && id.bytes().all(|digit| digit.is_ascii_digit()) {
        return Some(Container::Id(unit));
    }
    named(folder, parent).filter(|name| !name.is_empty()).map(Container::Name)
}

/// LXC and systemd-nspawn. Virtual machines are no containers, though systemd has them next to each other.
fn named<'a>(folder: &'a str, parent: &str) -> Option<&'a str> {
    if let Some(name) = folder.strip_prefix("lxc.payload.") {
        return Some(name);
    }
    match parent {
        "lxc" | "lxc.payload" => Some(folder),
        "machine.slice" => match folder.strip_prefix("systemd-nspawn@") {
            Some(instance) => instance.strip_suffix(".service"),
            None => folder
                .strip_prefix("machine-")
                .and_then(|name| name.strip_suffix(".scope"))
                .filter(|name| !name.starts_with("qemu")),
        },
        _ => None,
    }
}

/// `pod<uid>`, or `<slices>-pod<uid>.slice` with the dashes of the uid turned to underscores.
fn pod_uid(folder: &str) -> Option<Cow<'_, str>> {
    let name = folder.split(':').next()?;
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let uid = name.strip_prefix("pod").or_else(|| Some(name.rsplit_once("-pod")?.1))?;
    // That of a pod which the kubelet read from a file is a hash.
    if is_hex(uid, 32) || is_uuid(uid) {
        return Some(if uid.contains('_') { uid.replace('_', "-").into() } else { uid.into() });
    }
    None
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_uuid(text: &str) -> bool {
    let groups = || text.split(['-', '_']);
    groups().map(str::len).eq([8, 4, 4, 4, 12]) && groups().all(|group| is_hex(group, group.len()))
}

/// Undoes what systemd does to the names of units: `web\x2d1` is `web-1`.
pub fn unescape(name: &str) -> String {
    let mut text = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after.strip_prefix(b"x").and_then(|digits| digits.get(..2));
        let byte = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match byte {
            Some(byte) if first == b'\\' => {
                text.push(byte);
                rest = &after[3..];
            }
            _ => {
                text.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3f4b0a6f9f7d0c1b2a3e4d5c6b7a89900112233445566778899aabbccddeeff0";
    const B: &str = "b0b1c2d3e4f5061728394a5b6c7d8e9fb0b1c2d3e4f5061728394a5b6c7d8e9f";
    const UID: &str = "6c0d4c3e-9f1b-4f5e-8a7c-2b1a0f9e8d7c";
    const HASH: &str = "8b3e2e6f9d7a4c5b8a1f0e9d8c7b6a59";

    /// Paths as they are found on hosts; `A` and `B` stand for the ids of containers, `UID`, `U_I_D` and `HASH` for those of
    /// pods. Then what they say: the container, the pod and the service.
    const TABLE: &[(&str, &str, &str, &str)] = &[
        // Docker under both drivers, in a group of one's own, rootless.
        ("/docker/A", "A", "", ""),
        ("/docker/A/init.scope", "A", "", ""),
        ("/docker/A/system.slice/nginx.service", "A", "", ""),
        ("/system.slice/docker-A.scope", "A", "", ""),
        ("/system.slice/docker-A.scope/init.scope", "A", "", ""),
        ("/batch.slice/docker-A.scope", "A", "", ""),
        ("/ci/A", "A", "", ""),
        ("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-A.scope", "A", "", ""),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/docker.service", "", "", "docker.service"),
        ("/system.slice/docker.service", "", "", "docker.service"),
        ("/system.slice/docker.service/docker/buildkit/xj2m0kq0s5uqm0y0b6p2kzq3f", "", "", "docker.service"),
        ("/system.slice/docker-A.mount", "", "", ""),
        // Kubernetes: the classes of service, both drivers, pods from files; GKE, EKS, k3s, Bottlerocket and microk8s
        // choose among these.
        ("/kubepods/podUID/A", "A", "UID", ""),
        ("/kubepods/burstable/podUID/A", "A", "UID", ""),
        ("/kubepods/besteffort/podUID/A", "A", "UID", ""),
        ("/kubepods/burstable/podHASH/A", "A", "HASH", ""),
        ("/kubepods/burstable/podUID", "", "UID", ""),
        ("/kubepods/burstable", "", "", ""),
        ("/kubepods.slice/kubepods-podU_I_D.slice/cri-containerd-A.scope", "A", "UID", ""),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice/cri-containerd-A.scope",
            "A",
            "UID",
            "",
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podU_I_D.slice/cri-containerd-A.scope",
            "A",
            "UID",
            "",
        ),
        ("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podHASH.slice/docker-A.scope", "A", "HASH", ""),
        ("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podU_I_D.slice", "", "UID", ""),
        ("/system.slice/containerd.service/kubepods-burstable-podU_I_D.slice:cri-containerd:A", "A", "UID", ""),
        (
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podU_I_D.slice/cri-containerd-A.scope",
            "A",
            "UID",
            "",
        ),
        ("/k8s.io/A", "A", "", ""),
        // CRI-O, and the monitors of its containers.
        ("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice/crio-A.scope", "A", "UID", ""),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice/crio-A.scope/container",
            "A",
            "UID",
            "",
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice/crio-conmon-A.scope",
            "",
            "UID",
            "",
        ),
        ("/system.slice/crio-conmon-A.scope", "", "", ""),
        ("/kubepods/besteffort/podUID/crio-A", "A", "UID", ""),
        // Podman: rootful and rootless, in pods, in services.
        ("/machine.slice/libpod-A.scope", "A", "", ""),
        ("/machine.slice/libpod-A.scope/container", "A", "", ""),
        ("/machine.slice/libpod-conmon-A.scope", "", "", ""),
        ("/machine.slice/machine-libpod_pod_B.slice/libpod-A.scope", "A", "", ""),
        ("/libpod_parent/libpod-A", "A", "", ""),
        ("/libpod_parent/libpod-A/container", "A", "", ""),
        ("/libpod_parent/B", "", "", ""),
        ("/libpod_parent/B/libpod-A", "A", "", ""),
        ("/libpod_parent/conmon", "", "", ""),
        ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-A.scope/container", "A", "", ""),
        ("/system.slice/web.service/libpod-payload-A", "A", "", ""),
        ("/system.slice/web.service/libpod-payload-A/container", "A", "", ""),
        ("/system.slice/web.service/runtime", "", "", "web.service"),
        // nerdctl and containerd's own ctr.
        ("/system.slice/nerdctl-A.scope", "A", "", ""),
        ("/default/A", "A", "", ""),
        ("/default/redis", "", "", ""),
        // Amazon ECS.
        ("/ecs/HASH/A", "A", "", ""),
        ("/ecs/HASH/HASH-1234567890", "HASH-1234567890", "", ""),
        ("/ecs/HASH", "", "", ""),
        // One in another: kind, Docker in Docker, in a pod. The innermost.
        (
            "/docker/B/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podU_I_D.slice/cri-containerd-A.scope",
            "A",
            "UID",
            "",
        ),
        ("/docker/B/kubelet/kubepods/besteffort/podUID/A", "A", "UID", ""),
        ("/docker/B/system.slice/containerd.service", "B", "", ""),
        ("/docker/B/docker/A", "A", "", ""),
        ("/kubepods/burstable/podUID/B/docker/A", "A", "UID", ""),
        ("/lxc.payload.host1/system.slice/docker-A.scope", "A", "", ""),
        // LXC and systemd-nspawn; virtual machines are none.
        ("/lxc.payload.web-1", "web-1", "", ""),
        ("/lxc.payload.web-1/system.slice/nginx.service", "web-1", "", ""),
        ("/lxc.monitor.web-1", "", "", ""),
        ("/lxc/101/ns/system.slice/nginx.service", "101", "", ""),
        ("/lxc", "", "", ""),
        ("/machine.slice/machine-web\\x2d1.scope/payload", "web\\x2d1", "", ""),
        ("/machine.slice/systemd-nspawn@web.service/payload/system.slice/nginx.service", "web", "", ""),
        ("/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/emulator", "", "", ""),
        // The host.
        ("/", "", "", ""),
        ("", "", "", ""),
        ("/init.scope", "", "", ""),
        ("/system.slice", "", "", ""),
        ("/system.slice/nginx.service", "", "", "nginx.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "", "", "getty@tty1.service"),
        ("/system.slice/systemd-udevd.service/udev", "", "", "systemd-udevd.service"),
        ("/user.slice/user-1000.slice/session-2.scope", "", "", ""),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", "", "", "user@1000.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/foot.service", "", "", "foot.service"),
        ("/podman-notes/pod", "", "", ""),
    ];

    fn filled(text: &str) -> String {
        let text = text.replace("U_I_D", &UID.replace('-', "_")).replace("UID", UID).replace("HASH", HASH);
        let folders = text.split('/').map(|folder| match folder {
            "A" => A.to_owned(),
            "B" => B.to_owned(),
            other => {
                other.replace("-A", &format!("-{A}")).replace(":A", &format!(":{A}")).replace("_B", &format!("_{B}"))
            }
        });
        folders.collect::<Vec<_>>().join("/")
    }

    #[test]
    fn paths_of_every_runtime_and_driver() {
        for (path, container, pod_uid, service) in TABLE {
            let path = filled(path);
            let parsed = parse(&path);
            let found = (
                parsed.container.map_or("", Container::as_str).to_owned(),
                parsed.pod_uid.unwrap_or_default().into_owned(),
                parsed.service.unwrap_or_default().to_owned(),
            );
            assert_eq!(found, (filled(container), filled(pod_uid), (*service).to_owned()), "{path}");
        }
    }

    #[test]
    fn only_containerd_can_tell_what_else_is_a_container() {
        assert_eq!(containerd_task("/default/redis"), Some(("default", "redis")));
        assert_eq!(containerd_task("/default/redis/inner"), Some(("default", "redis")));
        for other in
            ["/", "/default", "/default/", "//redis", "/system.slice/x.service", "/user.slice/a", "default/redis"]
        {
            assert_eq!(containerd_task(other), None, "{other}");
        }
    }

    #[test]
    fn names_lose_the_spelling_of_systemd() {
        assert_eq!(unescape("web\\x2d1"), "web-1");
        assert_eq!(unescape("web-1"), "web-1");
        assert_eq!(unescape("a\\x2"), "a\\x2");
        assert_eq!(unescape("a\\xzz\\"), "a\\xzz\\");
        assert_eq!(unescape("\\xc3\\xa4"), "\u{e4}");
    }

    /// Numbers that look random and are the same in each run (SplitMix64).
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) % bound as u64) as usize
        }
    }

    /// A path of the pieces of real ones, put together wrongly, cut and spoilt.
    fn nonsense(dice: &mut Dice) -> String {
        let mut pieces: Vec<&str> = vec![
            "/",
            "/",
            "/",
            "-",
            ":",
            "_",
            ".",
            "\\x",
            "\u{e9}",
            "\0",
            A,
            B,
            UID,
            HASH,
            &A[..63],
            ".scope",
            ".service",
        ];
        pieces.extend([
            "pod",
            "-pod",
            "lxc/",
            "lxc.payload.",
            "machine.slice/",
            "machine-",
            "systemd-nspawn@",
            ".slice",
        ]);
        pieces.extend([
            "libpod_parent/",
            "libpod-",
            "conmon-",
            "docker/",
            "docker-",
            "crio-",
            "cri-containerd",
            "1234",
        ]);
        let mut path: String = (0..dice.below(12)).map(|_| pieces[dice.below(pieces.len())]).collect();
        if dice.below(4) == 0 {
            let cut = (0..=path.len()).filter(|at| path.is_char_boundary(*at)).nth(dice.below(path.len() + 1));
            path.truncate(cut.unwrap_or(path.len()));
        }
        path
    }

    #[test]
    fn whatever_the_path_is_what_is_found_stands_in_it() {
        let mut dice = Dice(1);
        let (mut containers, mut pods, mut services) = (0, 0, 0);
        for _ in 0..200_000 {
            let path = nonsense(&mut dice);
            let parsed = parse(&path);
            _ = (containerd_task(&path), unescape(&path));
            if let Some(container) = parsed.container {
                let id = container.as_str();
                assert!(!id.is_empty() && path.split('/').any(|folder| folder.contains(id)), "{path:?}: {id:?}");
                assert_eq!(parsed.service, None, "{path:?}");
                // Nothing that a container makes for itself hides it, and it hides no container that it is in.
                for inner in ["/init.scope", "/x.service", "/supervised/a-b"] {
                    let name = format!("{path}{inner}");
                    let grown = path.ends_with("lxc") || path.ends_with("lxc.payload");
                    let kept = parse(&name);
                    assert!(grown || (kept.container, &kept.pod_uid) == (Some(container), &parsed.pod_uid), "{name:?}");
                }
                containers += 1;
            }
            if let Some(uid) = &parsed.pod_uid {
                assert!(path.contains(&**uid) || path.contains(&uid.replace('-', "_")), "{path:?}: {uid:?}");
                assert_eq!(parse(&format!("/pod{uid}")).pod_uid.as_ref(), Some(uid));
                pods += 1;
            }
            if let Some(service) = parsed.service {
                assert!(path.split('/').any(|folder| folder == service), "{path:?}: {service:?}");
                services += 1;
            }
            assert_eq!(parse(&format!("/docker/{A}/{path}")).service, None);
            assert!(parse(&format!("/docker/{A}/{path}")).container.is_some());
            assert_eq!(parse(&format!("{path}/docker/{A}")).container, Some(Container::Id(A)));
        }
        assert!(containers > 10_000 && pods > 300 && services > 1_000, "{containers}, {pods}, {services}");
    }
}
