//! The list that podman keeps of its containers on disk. It has no daemon that could be asked.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;

use super::{AskError, MOST_BYTES};
use crate::identity::store::{Answer, Details};

/// A folder for each way of storing layers, of which one is in use.
const FOLDERS: [&str; 4] = ["overlay-containers", "vfs-containers", "btrfs-containers", "zfs-containers"];

/// Those that outlive a reboot, and those that do not.
const LISTS: [&str; 2] = ["containers.json", "volatile-containers.json"];

/// One of a list; what is not there is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Stored {
    id: String,
    names: Option<Vec<String>>,
    /// JSON again.
    metadata: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Metadata {
    image_name: String,
}

/// All containers.
pub fn ask(storage: &Path) -> Result<Answer, AskError> {
    let mut answer = Answer::default();
    let mut found = false;
    for path in FOLDERS.iter().flat_map(|folder| LISTS.map(|list| storage.join(folder).join(list))) {
        match read(&path) {
            Ok(text) => answer.containers.extend(parse(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(AskError::failed(error)),
        }
        found = true;
    }
    if found { Ok(answer) } else { Err(AskError::Absent) }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MOST_BYTES as u64).read_to_end(&mut text)?;
    Ok(text)
}

fn parse(text: &[u8]) -> Result<impl Iterator<Item = Details> + use<>, AskError> {
    let stored: Vec<Stored> = serde_json::from_slice(text).map_err(AskError::failed)?;
    Ok(stored.into_iter().map(|stored| {
        let metadata: Metadata = serde_json::from_str(&stored.metadata).unwrap_or_default();
        Details {
            id: stored.id.into(),
            name: stored.names.and_then(|names| names.into_iter().next()).unwrap_or_default().into(),
            image: metadata.image_name.into(),
            ..Details::default()
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_its_first_name() {
        let text =
            br#"[{"id":"aa","names":["web"],"metadata":"{\"image-name\":\"nginx\",\"name\":\"web\"}","flags":{}},
                        {"id":"bb","names":null,"metadata":"spoilt"}]"#;
        let found: Vec<_> = parse(text).unwrap().map(|one| [one.id, one.name, one.image].map(String::from)).collect();
        assert_eq!(found, [["aa", "web", "nginx"], ["bb", "", ""]]);
        assert!(parse(b"[{").is_err());
    }
}
