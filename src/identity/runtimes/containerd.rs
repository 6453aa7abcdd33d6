//! containerd's own API, for containers that neither the kubelet nor Docker has made: those of `nerdctl` and `ctr`.

use std::collections::BTreeSet;
use std::path::Path;

use super::AskError;
use super::unix::Channel;
use crate::identity::store::{Answer, Details, Unnamed};

mod containers {
    #![allow(warnings, clippy::all, missing_docs)]
    include!(concat!(env!("OUT_DIR"), "/containerd.services.containers.v1.rs"));
}
mod namespaces {
    #![allow(warnings, clippy::all, missing_docs)]
    include!(concat!(env!("OUT_DIR"), "/containerd.services.namespaces.v1.rs"));
}
use containers::{Container, ListContainersRequest, ListContainersResponse};
use namespaces::{ListNamespacesRequest, ListNamespacesResponse};

/// By which a call says what namespace it is about.
const NAMESPACE: &str = "containerd-namespace";

/// Where Docker keeps its containers: without names, which it keeps for itself.
const OF_DOCKER: &str = "moby";

/// More are not asked about; each is a call.
const MOST_NAMESPACES: usize = 64;

/// Those that are asked for, whatever namespace they are in.
pub async fn ask(path: &Path, unnamed: &Unnamed) -> Result<Answer, AskError> {
    let mut channel = Channel::connect(path).await?;
    let found: ListNamespacesResponse =
        channel.call("/containerd.services.namespaces.v1.Namespaces/List", None, &ListNamespacesRequest {}).await?;
    let mut answer = Answer::default();
    let theirs = found.namespaces.into_iter().map(|namespace| namespace.name).filter(|name| name != OF_DOCKER);
    for namespace in theirs.take(MOST_NAMESPACES) {
        let question = ListContainersRequest { filters: filters(&namespace, unnamed) };
        if question.filters.is_empty() {
            continue;
        }
        let header = Some((NAMESPACE, namespace.as_str()));
        let found: ListContainersResponse =
            channel.call("/containerd.services.containers.v1.Containers/List", header, &question).await?;
        answer.containers.extend(found.containers.into_iter().map(|container| details(container, &namespace, unnamed)));
    }
    Ok(answer)
}

/// Of a namespace, those that are asked for.
fn filters(namespace: &str, unnamed: &Unnamed) -> Vec<String> {
    let tasks = unnamed.tasks.iter().filter(|(of, _)| **of == *namespace).map(|(_, id)| id);
    let ids: BTreeSet<_> = unnamed.ids.iter().chain(tasks).filter(|id| is_id(id)).collect();
    ids.into_iter().map(|id| format!("id=={id}")).collect()
}

/// What containerd takes for an id; nothing else could be one, and would mean something in a filter.
fn is_id(text: &str) -> bool {
    text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
}

fn details(container: Container, namespace: &str, unnamed: &Unnamed) -> Details {
    let label = |name: &str| container.labels.get(name).map_or("", String::as_str);
    let of_pod = label("io.kubernetes.container.name");
    let name = match [of_pod, label("nerdctl/name")] {
        [_, _] if label("io.cri-containerd.kind") == "sandbox" => "POD",
        [name, _] | [_, name] if !name.is_empty() => name,
        _ => &container.id,
    };
    let by_id = unnamed.ids.iter().any(|id| **id == *container.id);
    Details {
        task_of: if by_id { Box::default() } else { namespace.into() },
        name: name.into(),
        pod: label("io.kubernetes.pod.name").into(),
        namespace: label("io.kubernetes.pod.namespace").into(),
        image: container.image.as_str().into(),
        id: container.id.as_str().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_asked_for_all_ids_and_for_its_own_tasks() {
        let tasks = [("default", "redis"), ("other", "db"), ("default", "a b"), ("default", "x,id!=y")];
        let tasks = tasks.map(|(of, id)| (of.into(), id.into())).into();
        let unnamed = Unnamed { ids: vec!["aa".into()], tasks, new: true };
        assert_eq!(filters("default", &unnamed), ["id==aa", "id==redis"]);
        assert_eq!(filters("k8s.io", &unnamed), ["id==aa"]);
        assert_eq!(filters("k8s.io", &Unnamed::default()), [""; 0]);
    }

    #[test]
    fn labels_name_a_container_and_its_id_does_where_there_are_none() {
        let unnamed = Unnamed { ids: vec!["aa".into()], ..Unnamed::default() };
        let named = |id: &str, labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let found = details(Container { id: id.into(), labels, image: "i".into() }, "default", &unnamed);
            (found.name.to_string(), found.pod.to_string(), found.task_of.to_string())
        };
        let text = |name: &str, pod: &str, of: &str| (name.to_owned(), pod.to_owned(), of.to_owned());
        assert_eq!(named("redis", &[]), text("redis", "", "default"));
        assert_eq!(named("aa", &[("nerdctl/name", "web")]), text("web", "", ""));
        let labels = [("io.kubernetes.container.name", "web"), ("io.kubernetes.pod.name", "shop")];
        assert_eq!(named("aa", &labels), text("web", "shop", ""));
        assert_eq!(named("aa", &[("io.cri-containerd.kind", "sandbox"), labels[1]]), text("POD", "shop", ""));
    }
}
