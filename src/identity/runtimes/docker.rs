//! The Docker Engine API over its socket, which podman's service speaks too.

use std::collections::HashMap;
use std::path::Path;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use serde::Deserialize;

use super::{AskError, MOST_BYTES, unix};
use crate::identity::store::{Answer, Details};

/// One of `GET /containers/json`; what is not there is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Listed {
    id: String,
    /// Null where there are none.
    names: Option<Vec<String>>,
    image: String,
    labels: Option<HashMap<String, String>>,
}

/// All containers, those that ended among them.
pub async fn ask(path: &Path) -> Result<Answer, AskError> {
    let mut sender = unix::http(path).await?;
    let request = Request::get("/containers/json?all=true").header(header::HOST, unix::HOST);
    let request = request.body(Empty::<Bytes>::new()).expect("it has no bad character");
    let response = sender.send_request(request).await.map_err(AskError::failed)?;
    if response.status() != StatusCode::OK {
        return Err(AskError::Failed(format!("it answers with {}", response.status())));
    }
    let body = Limited::new(response.into_body(), MOST_BYTES).collect().await.map_err(AskError::failed)?;
    let listed: Vec<Listed> = serde_json::from_slice(&body.to_bytes()).map_err(AskError::failed)?;
    Ok(Answer { containers: listed.into_iter().map(details).collect(), pods: Vec::new() })
}

fn details(listed: Listed) -> Details {
    let labels = listed.labels.unwrap_or_default();
    let label = |name: &str| labels.get(name).map_or("", String::as_str);
    let names = listed.names.unwrap_or_default();
    // Its own has one slash; those that others have linked it by, more.
    let own = names.iter().map(|name| name.strip_prefix('/').unwrap_or(name)).find(|name| !name.contains('/'));
    // Kubernetes has Docker call it by all of this at once.
    let name = match label("io.kubernetes.container.name") {
        _ if label("io.kubernetes.docker.type") == "podsandbox" => "POD",
        "" => own.unwrap_or_default(),
        name => name,
    };
    Details {
        id: listed.id.into(),
        task_of: Box::default(),
        name: name.into(),
        pod: label("io.kubernetes.pod.name").into(),
        namespace: label("io.kubernetes.pod.namespace").into(),
        image: listed.image.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(json: &str) -> [String; 4] {
        let found = details(serde_json::from_str(json).unwrap());
        [found.id, found.name, found.pod, found.image].map(String::from)
    }

    #[test]
    fn a_container_is_called_as_docker_ps_calls_it() {
        let json = r#"{"Id":"aa","Names":["/proxy/alias","/web"],"Image":"nginx","Labels":{},"State":"running"}"#;
        assert_eq!(named(json), ["aa", "web", "", "nginx"]);
        assert_eq!(named(r#"{"Id":"aa","Names":["web"],"Image":"nginx","Labels":null}"#), ["aa", "web", "", "nginx"]);
        assert_eq!(named(r#"{"Id":"aa","Names":null}"#), ["aa", "", "", ""]);
    }

    #[test]
    fn kubernetes_says_what_it_is_by_labels() {
        let json = |kind: &str| {
            format!(
                r#"{{"Id":"aa","Names":["/k8s_web_shop_prod_uid_0"],"Labels":{{"io.kubernetes.container.name":"web",
                "io.kubernetes.pod.name":"shop","io.kubernetes.docker.type":"{kind}"}}}}"#
            )
        };
        assert_eq!(named(&json("container")), ["aa", "web", "shop", ""]);
        assert_eq!(named(&json("podsandbox")), ["aa", "POD", "shop", ""]);
    }
}
