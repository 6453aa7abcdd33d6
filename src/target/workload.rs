//! Whether a workload is watched, from what is known of it. Pure.

use super::Config;
use crate::identity::Workload;

/// The least that people write of an id, as it is shown in lists.
const SHORT_ID: usize = 12;

/// `None` as long as what is known does not tell. `seen`: the cgroup is known, so that one without a workload is the host's.
pub fn is_watched(config: &Config, workload: Option<&Workload>, seen: bool) -> Option<bool> {
    let Some(workload) = workload else { return seen.then_some(false) };
    if workload.container_id.is_empty() {
        return Some(false);
    }
    // Until its runtime tells, a container is called by its id; one whose id is no number has no other name.
    let named = workload.container != workload.container_id || !is_number(&workload.container_id);
    let container = match config.containers.as_slice() {
        [] => Some(true),
        wanted if wanted.iter().any(|name| **name == *workload.container || is_id(name, workload)) => Some(true),
        // Hardly anybody calls a container by so many digits.
        wanted => (named || wanted.iter().all(|name| is_short_id(name))).then_some(false),
    };
    let namespace = match config.namespaces.as_slice() {
        [] => Some(true),
        wanted if !workload.namespace.is_empty() => Some(wanted.iter().any(|name| **name == *workload.namespace)),
        _ => named.then_some(false),
    };
    match (container, namespace) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

fn is_number(id: &str) -> bool {
    id.bytes().all(|digit| digit.is_ascii_hexdigit())
}

fn is_short_id(name: &str) -> bool {
    name.len() >= SHORT_ID && is_number(name)
}

fn is_id(name: &str, workload: &Workload) -> bool {
    is_short_id(name) && workload.container_id.starts_with(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn workload(container: &str, namespace: &str) -> Workload {
        let (container_id, container, namespace) = (ID.into(), container.into(), namespace.into());
        Workload { container_id, container, namespace, ..Workload::default() }
    }

    fn config(containers: &[&str], namespaces: &[&str]) -> Config {
        let all = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Config { containers: all(containers), namespaces: all(namespaces), ..Config::default() }
    }

    #[test]
    fn a_container_is_known_by_its_id_at_once_and_by_its_name_when_that_is_told() {
        let unnamed = workload(ID, "");
        let watched = |wanted: &str, workload: &Workload| is_watched(&config(&[wanted], &[]), Some(workload), true);
        assert_eq!(watched(ID, &unnamed), Some(true));
        assert_eq!(watched("0123456789ab", &unnamed), Some(true));
        assert_eq!(watched("0123456789a", &unnamed), None);
        assert_eq!(watched("0123456789aa", &unnamed), Some(false));
        assert_eq!(watched("web", &unnamed), None);
        assert_eq!(watched("web", &workload("web", "")), Some(true));
        assert_eq!(watched("web", &workload("db", "")), Some(false));
        assert_eq!(watched("0123456789ab", &workload("db", "")), Some(true));
    }

    #[test]
    fn a_container_without_a_number_has_no_other_name_than_its_path_tells() {
        let lxc = Workload { container_id: "web-1".into(), container: "web-1".into(), ..Workload::default() };
        assert_eq!(is_watched(&config(&["web-1"], &[]), Some(&lxc), true), Some(true));
        assert_eq!(is_watched(&config(&["db"], &[]), Some(&lxc), true), Some(false));
        assert_eq!(is_watched(&config(&[], &["shop"]), Some(&lxc), true), Some(false));
    }

    #[test]
    fn both_kinds_have_to_fit() {
        let both = config(&["web", "db"], &["shop"]);
        assert_eq!(is_watched(&both, Some(&workload("db", "shop")), true), Some(true));
        assert_eq!(is_watched(&both, Some(&workload("db", "other")), true), Some(false));
        assert_eq!(is_watched(&both, Some(&workload("cache", "shop")), true), Some(false));
        assert_eq!(is_watched(&both, Some(&workload("db", "")), true), Some(false));
        assert_eq!(is_watched(&both, Some(&workload(ID, "")), true), None);
        assert_eq!(is_watched(&both, Some(&workload(ID, "other")), true), Some(false));
    }

    #[test]
    fn what_is_in_no_container_is_not_watched_once_that_is_known() {
        let any = config(&["web"], &[]);
        let service = Workload { service: "web.service".into(), ..Workload::default() };
        assert_eq!(is_watched(&any, Some(&service), true), Some(false));
        assert_eq!(is_watched(&any, None, true), Some(false));
        assert_eq!(is_watched(&any, None, false), None);
    }
}
