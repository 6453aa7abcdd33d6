//! Where lines go. A file holds whole lines only, is rotated by size, and opened anew when somebody has moved it away.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Config;

/// How soon it is noticed that the file was moved away, deleted or cut off.
const LOOK: Duration = Duration::from_secs(1);

/// For a reader that takes nothing, where the output was set up not to wait.
const RETRY: Duration = Duration::from_millis(10);

/// An open output.
#[derive(Debug)]
pub struct Output {
    file: File,
    /// What is known of the file; `None` for what is no file, such as a pipe.
    place: Option<Place>,
    /// The last line is not whole, and could not be taken back.
    torn: bool,
}

#[derive(Debug)]
struct Place {
    path: PathBuf,
    max_size: u64,
    max_files: u32,
    identity: (u64, u64),
    size: u64,
    /// When this was true.
    looked: Option<Instant>,
}

/// Not everything was written.
#[derive(Debug)]
pub struct Failed {
    /// Bytes of the lines that were written whole.
    pub whole: usize,
    /// Why not the others.
    pub error: io::Error,
}

impl Output {
    /// Whatever the process was given for it.
    pub fn stdout() -> io::Result<Output> {
        Ok(Output { file: io::stdout().as_fd().try_clone_to_owned()?.into(), place: None, torn: false })
    }

    /// The file of that name; what is in it stays.
    pub fn open(config: &Config) -> io::Result<Output> {
        let path = PathBuf::from(&config.output);
        let (file, metadata) = append_to(&path)?;
        let place = metadata.is_file().then(|| Place {
            path,
            max_size: config.max_size,
            max_files: config.max_files,
            identity: identity(&metadata),
            size: metadata.len(),
            looked: None,
        });
        let torn = place.is_some() && ends_within_a_line(&file)?;
        Ok(Output { file, place, torn })
    }

    /// Writes whole lines.
    pub fn write(&mut self, lines: &[u8]) -> Result<(), Failed> {
        let mut written = 0;
        let outcome = self.prepare(lines.len() as u64).and_then(|()| self.write_all(lines, &mut written));
        if let Some(place) = &mut self.place {
            place.size += written as u64;
        }
        outcome.map_err(|error| {
            let whole = lines[..written].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            self.torn |= written > whole && !self.take_back((written - whole) as u64);
            Failed { whole, error }
        })
    }

    /// Sees to it that there is a file, with room for so many bytes, that ends with a line.
    fn prepare(&mut self, bytes: u64) -> io::Result<()> {
        if let Some(place) = &mut self.place {
            if place.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
                place.look(&mut self.file, &mut self.torn)?;
            }
            if place.max_size > 0 && place.size > 0 && place.size + bytes > place.max_size {
                place.looked = None; // until it has succeeded
                place.rotate()?;
                place.look(&mut self.file, &mut self.torn)?;
            }
        }
        if self.torn {
            self.write_all(b"\n", &mut 0)?;
            self.torn = false;
        }
        Ok(())
    }

    fn write_all(&mut self, mut bytes: &[u8], written: &mut usize) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    *written += count;
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(RETRY),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Cuts off the begin of a line, if nobody has written after it. False if that cannot be done.
    fn take_back(&mut self, bytes: u64) -> bool {
        let Some(place) = &mut self.place else { return false };
        let is_last = self.file.metadata().is_ok_and(|metadata| metadata.len() == place.size);
        let taken = is_last && self.file.set_len(place.size - bytes).is_ok();
        if taken {
            place.size -= bytes;
        }
        taken
    }
}

impl Place {
    /// Opens the file anew if it is no longer where it was.
    fn look(&mut self, file: &mut File, torn: &mut bool) -> io::Result<()> {
        self.looked = None;
        let found = match fs::metadata(&self.path) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let metadata = match found {
            Some(metadata) if identity(&metadata) == self.identity => metadata,
            _ => {
                let metadata;
                (*file, metadata) = append_to(&self.path)?;
                *torn = ends_within_a_line(file)?;
                metadata
            }
        };
        self.identity = identity(&metadata);
        self.size = metadata.len();
        self.looked = Some(Instant::now());
        Ok(())
    }

    /// `log` becomes `log.1`, `log.1` becomes `log.2`, and so on; the last is overwritten.
    fn rotate(&self) -> io::Result<()> {
        if self.max_files == 0 {
            return fs::remove_file(&self.path);
        }
        for number in (1..self.max_files).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => (),
            }
        }
        fs::rename(&self.path, self.numbered(1))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }
}

/// Who talks to whom is nobody else's business.
fn append_to(path: &PathBuf) -> io::Result<(File, Metadata)> {
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

/// As after a process that was killed while it wrote.
fn ends_within_a_line(mut file: &File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A folder that is gone when the test ends.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("ebpf-sidecar-log-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn output(&self, max_size: u64, max_files: u32) -> Output {
            let output = self.0.join("log").display().to_string();
            Output::open(&Config { output, max_size, max_files, ..Config::default() }).unwrap()
        }

        fn read(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.0.join(name)).ok()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_full_file_makes_room_and_the_oldest_goes() {
        let folder = Folder::new("rotate");
        let mut output = folder.output(10, 2);
        for line in ["first\n", "1\n", "second\n", "third\n", "longer than allowed\n", "last\n"] {
            output.write(line.as_bytes()).unwrap();
        }
        let read = |name| folder.read(name);
        assert_eq!(read("log").as_deref(), Some("last\n"));
        assert_eq!(read("log.1").as_deref(), Some("longer than allowed\n"));
        assert_eq!(read("log.2").as_deref(), Some("third\n"));
        assert_eq!(read("log.3"), None);
    }

    #[test]
    fn without_files_to_keep_it_begins_anew() {
        let folder = Folder::new("none");
        let mut output = folder.output(10, 0);
        output.write(b"123456789\n").unwrap();
        output.write(b"new\n").unwrap();
        assert_eq!(folder.read("log").as_deref(), Some("new\n"));
        assert_eq!(folder.read("log.1"), None);
    }

    #[test]
    fn it_goes_on_where_it_was_and_leaves_no_line_torn() {
        let folder = Folder::new("torn");
        folder.output(0, 1).write(b"whole\n").unwrap();
        folder.output(0, 1).write(b"half").unwrap();
        folder.output(0, 1).write(b"next\n").unwrap();
        assert_eq!(folder.read("log").as_deref(), Some("whole\nhalf\nnext\n"));
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let folder = Folder::new("moved");
        let mut output = folder.output(0, 1);
        output.write(b"old\n").unwrap();
        fs::rename(folder.0.join("log"), folder.0.join("away")).unwrap();
        output.place.as_mut().unwrap().looked = None;
        output.write(b"new\n").unwrap();
        assert_eq!((folder.read("away").as_deref(), folder.read("log").as_deref()), (Some("old\n"), Some("new\n")));
        // Cut off in place, as logrotate's copytruncate does.
        File::create(folder.0.join("log")).unwrap();
        output.write(b"newer\n").unwrap();
        assert_eq!(folder.read("log").as_deref(), Some("newer\n"));
    }

    #[test]
    fn what_cannot_be_written_is_told() {
        let mut output = Output::open(&Config { output: "/dev/full".into(), ..Config::default() }).unwrap();
        let failed = output.write(b"line\n").unwrap_err();
        assert_eq!((failed.whole, failed.error.kind()), (0, ErrorKind::StorageFull));
        assert!(Output::open(&Config { output: "/no/such/folder".into(), ..Config::default() }).is_err());
        assert!(!Path::new("/no").exists());
    }
}
