//! The Container Runtime Interface, by which the kubelet speaks to containerd, CRI-O and cri-dockerd: `runtime.v1`.

use std::collections::HashMap;
use std::path::Path;

use super::AskError;
use super::unix::Channel;
use crate::identity::store::{Answer, Details, Pod};

mod api {
    #![allow(warnings, clippy::all, missing_docs)]
    include!(concat!(env!("OUT_DIR"), "/runtime.v1.rs"));
}
use api::{
    Container, ListContainersRequest, ListContainersResponse, ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox,
};

/// What the container is called that holds the namespaces of a pod.
const SANDBOX: &str = "POD";

/// All containers, those that ended among them, and all pods.
pub async fn ask(path: &Path) -> Result<Answer, AskError> {
    let mut channel = Channel::connect(path).await?;
    // In this order, a container's pod is known, as it is made before.
    let containers: ListContainersResponse =
        channel.call("/runtime.v1.RuntimeService/ListContainers", None, &ListContainersRequest {}).await?;
    let pods: ListPodSandboxResponse =
        channel.call("/runtime.v1.RuntimeService/ListPodSandbox", None, &ListPodSandboxRequest {}).await?;
    Ok(answer(containers.containers, pods.items))
}

fn answer(containers: Vec<Container>, sandboxes: Vec<PodSandbox>) -> Answer {
    let sandboxes = sandboxes.into_iter().map(|sandbox| (sandbox.id, sandbox.metadata.unwrap_or_default()));
    let sandboxes: HashMap<_, _> = sandboxes.collect();
    let none = Default::default();
    let of_container = |container: Container| {
        let pod = sandboxes.get(&container.pod_sandbox_id).unwrap_or(&none);
        let image = container.image.unwrap_or_default();
        let image = if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image };
        Details {
            id: container.id.into(),
            task_of: Box::default(),
            name: container.metadata.unwrap_or_default().name.into(),
            pod: pod.name.as_str().into(),
            namespace: pod.namespace.as_str().into(),
            image: image.into(),
        }
    };
    let mut containers: Vec<_> = containers.into_iter().map(of_container).collect();
    containers.extend(sandboxes.iter().map(|(id, pod)| Details {
        id: id.as_str().into(),
        name: SANDBOX.into(),
        pod: pod.name.as_str().into(),
        namespace: pod.namespace.as_str().into(),
        ..Details::default()
    }));
    let pod = |pod: &api::PodSandboxMetadata| {
        (pod.uid.as_str().into(), Pod { name: pod.name.as_str().into(), namespace: pod.namespace.as_str().into() })
    };
    Answer { containers, pods: sandboxes.values().map(pod).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_named_with_their_pods_and_sandboxes_are_too() {
        let metadata = api::PodSandboxMetadata { name: "shop".into(), uid: "u".into(), namespace: "prod".into() };
        let sandbox = PodSandbox { id: "s".into(), metadata: Some(metadata) };
        let container = Container {
            id: "c".into(),
            pod_sandbox_id: "s".into(),
            metadata: Some(api::ContainerMetadata { name: "web".into() }),
            image: Some(api::ImageSpec { image: "sha256:1".into(), user_specified_image: "nginx:1".into() }),
        };
        let answer = answer(vec![container, Container { id: "bare".into(), ..Container::default() }], vec![sandbox]);
        let found = answer.containers.iter().map(|one| [&*one.id, &one.name, &one.pod, &one.namespace, &one.image]);
        let expected =
            [["c", "web", "shop", "prod", "nginx:1"], ["bare", "", "", "", ""], ["s", "POD", "shop", "prod", ""]];
        assert_eq!(found.collect::<Vec<_>>(), expected);
        let pod = Pod { name: "shop".into(), namespace: "prod".into() };
        assert_eq!(answer.pods, [("u".into(), pod)]);
    }
}
