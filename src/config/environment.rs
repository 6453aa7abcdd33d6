//! The environment layer: which variable sets which key, and which variables only look like ours.

use std::path::PathBuf;

use super::error::ConfigError;
use super::keys::{Keys, nearest};
use super::setting::{Origin, Setting};

const PREFIX: &str = "EBPF_SIDECAR_";

/// Names the configuration file, as `--config` does.
pub const CONFIG_VARIABLE: &str = "EBPF_SIDECAR_CONFIG";

/// What Kubernetes users conventionally call what the downward API tells. Each sets its key unless our own variable does.
const DOWNWARD: [(&str, &str); 3] =
    [("NODE_NAME", "node.name"), ("POD_NAME", "identity.pod_name"), ("POD_NAMESPACE", "identity.pod_namespace")];

/// What the environment says.
#[derive(Debug, Default)]
pub struct Environment {
    /// The configuration file, if one is named.
    pub file: Option<PathBuf>,
    /// Settings, the weaker first.
    pub settings: Vec<Setting>,
}

/// The variable that sets a key: capitals, with `_` for `.` and `-`.
///
/// This cannot be reversed (`page-cache` and `page.cache` would share a name), which is why names are always looked up
/// from the known keys and never taken apart.
pub fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace(['.', '-'], "_"))
}

/// Reads the variables that are meant for us.
///
/// # Errors
/// [`ConfigError::UnknownVariable`] for one that has our prefix and sets nothing.
pub fn read(variables: impl IntoIterator<Item = (String, String)>, keys: &Keys) -> Result<Environment, ConfigError> {
    let mut found = Environment::default();
    for (name, value) in variables {
        if let Some((_, key)) = DOWNWARD.iter().find(|(variable, _)| *variable == name) {
            // First, so that EBPF_SIDECAR_NODE_NAME beats NODE_NAME whatever the order of the environment.
            found.settings.insert(0, Setting::from_text(keys, key, &value, Origin::Variable(name)));
        } else if name == CONFIG_VARIABLE {
            found.file = Some(value).filter(|path| !path.is_empty()).map(PathBuf::from);
        } else if let Some(rest) = name.strip_prefix(PREFIX) {
            if is_service_address(rest, &value) {
                continue;
            } else if let Some(key) = keys.leaves().find(|key| variable_of(key) == name) {
                found.settings.push(Setting::from_text(keys, key, &value, Origin::Variable(name)));
            } else if !is_service_name(rest) {
                return Err(ConfigError::UnknownVariable { nearest: nearest_variable(rest, keys), name });
            }
        }
    }
    Ok(found)
}

/// The variable that was probably meant, by what follows the prefix: that alone would make any two names alike.
fn nearest_variable(rest: &str, keys: &Keys) -> Option<String> {
    let known = keys.leaves().map(variable_of).chain([CONFIG_VARIABLE.to_owned()]);
    let rests = known.filter_map(|name| Some(name.strip_prefix(PREFIX)?.to_owned()));
    nearest(rest, rests).map(|rest| format!("{PREFIX}{rest}"))
}

/// Whether Kubernetes put the variable there for a Service whose name begins with ours, in the style of Docker links:
/// `..._PORT=tcp://10.0.0.1:9090` and `..._PORT_9090_TCP=tcp://10.0.0.1:9090`. No key of ours takes such a value, so it
/// is not a setting even where the name is that of a key.
fn is_service_address(rest: &str, value: &str) -> bool {
    let address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    address && (ends_with_part(rest, "PORT") || is_service_name(rest))
}

/// Whether the name alone is one that Kubernetes makes up for Services: `SERVICE_HOST`, `SERVICE_PORT`,
/// `SERVICE_PORT_<NAME>`, `PORT_<number>_<PROTOCOL>` and `PORT_<number>_<PROTOCOL>_{PROTO,PORT,ADDR}`, after nothing or
/// the rest of the Service's name.
fn is_service_name(rest: &str) -> bool {
    let parts: Vec<&str> = rest.split('_').collect();
    (0..parts.len()).any(|start| match &parts[start..] {
        ["SERVICE", "HOST"] | ["SERVICE", "PORT", ..] => true,
        ["PORT", number, "TCP" | "UDP" | "SCTP", tail @ ..] => {
            number.parse::<u16>().is_ok() && matches!(tail, [] | ["PROTO" | "PORT" | "ADDR"])
        }
        _ => false,
    })
}

fn ends_with_part(rest: &str, part: &str) -> bool {
    rest.rsplit('_').next() == Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_kubernetes_makes_up_are_told_from_ours() {
        for name in ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP_METRICS", "METRICS_SERVICE_HOST"] {
            assert!(is_service_name(name), "{name}");
        }
        for name in ["PORT_8080_TCP", "PORT_8080_TCP_ADDR", "HTTP_PORT_53_UDP_PROTO"] {
            assert!(is_service_name(name), "{name}");
        }
        for name in ["PORT", "SERVER_GRPC_PORT", "SERVICE", "PORT_HTTP_TCP", "PORT_8080_TCP_HOST", "SERVICES_HOST"] {
            assert!(!is_service_name(name), "{name}");
        }
    }

    #[test]
    fn an_address_is_not_a_port() {
        assert!(is_service_address("SERVER_GRPC_PORT", "tcp://10.0.0.1:9090"));
        assert!(is_service_address("PORT", "udp://[fd00::1]:53"));
        assert!(!is_service_address("SERVER_GRPC_PORT", "9090"));
        assert!(!is_service_address("NODE_NAME", "tcp://10.0.0.1:9090"));
    }
}
