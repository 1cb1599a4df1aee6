//! Detects changes of the spec file.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    time::{Duration, SystemTime},
};

/// A file younger than this may be written again without a change of its modification time: time stamps are coarse.
const FRESH: Duration = Duration::from_secs(2);

/// The spec file. It is checked by path: an update of a mounted `ConfigMap` replaces a symbolic link in that path.
pub struct SpecFile {
    path: String,
    last: Option<Stamp>,
    /// Whether the file was younger than [`FRESH`] at the last check, and must be read once more.
    recheck: bool,
}

/// The metadata that changes with the file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &str) -> io::Result<(Self, SystemTime)> {
        let metadata = fs::metadata(path)?;
        let stamp = Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        };
        Ok((stamp, metadata.modified()?))
    }
}

impl SpecFile {
    /// To be called immediately before or after the file is read.
    pub fn new(path: &str) -> Self {
        let mut file = Self {
            path: path.to_owned(),
            last: None,
            recheck: false,
        };
        file.has_changed();
        file
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the file has changed since the last call. A missing file has not changed: it is being replaced.
    pub fn has_changed(&mut self) -> bool {
        let Ok((stamp, modified)) = Stamp::of(&self.path) else {
            return false;
        };
        let is_fresh = modified.elapsed().unwrap_or_default() < FRESH;
        let has_changed = self.last != Some(stamp) || self.recheck;
        self.recheck = is_fresh;
        self.last = Some(stamp);
        has_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_written_to_or_linked_elsewhere_has_changed() {
        let directory =
            std::env::temp_dir().join(format!("egress-router-spec-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("router.yaml");
        let old = SystemTime::now() - 2 * FRESH;
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).unwrap();
            fs::File::open(&path).unwrap().set_modified(old).unwrap();
        };
        write("one", "1");
        write("two", "2");
        std::os::unix::fs::symlink(directory.join("one"), &path).unwrap();
        let mut file = SpecFile::new(path.to_str().unwrap());
        assert!(!file.has_changed());
        std::os::unix::fs::symlink(directory.join("two"), directory.join("next")).unwrap();
        fs::rename(directory.join("next"), &path).unwrap();
        assert!(file.has_changed(), "the link leads elsewhere");
        assert!(!file.has_changed());
        write("two", "22");
        assert!(file.has_changed(), "written to");
        assert!(!file.has_changed());
        fs::remove_file(&path).unwrap();
        assert!(!file.has_changed(), "gone");
        fs::remove_dir_all(&directory).unwrap();
    }
}
