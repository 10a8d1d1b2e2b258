//! Several files that appear together or not at all.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process;

use super::{HashedFile, WriteError, Written, platform};

/// Name of the file that says that a folder is being written to.
const LOCK_NAME: &str = "lfm2-export.lock";

/// Changes to the files of one folder: new ones are written beside their final names, old ones stay until [`Self::commit`].
/// What is not committed is undone when this is dropped.
#[derive(Debug)]
pub struct Staging {
    root: PathBuf,
    /// Held until everything is done.
    _lock: File,
    /// New files: where they are being written, and what they will be called.
    files: Vec<(PathBuf, PathBuf)>,
    removed: Vec<PathBuf>,
    /// Old files out of the way: where they are, and where they belong.
    aside: Vec<(PathBuf, PathBuf)>,
    /// New files under their final names.
    placed: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Staging {
    /// Begins changes in `root`, which is made if it is not there. Nobody else can, until this is dropped or committed.
    pub fn lock(root: &Path) -> Result<Self, WriteError> {
        let mut folders = Vec::new();
        let lock = create_folder(root, &mut folders).and_then(|()| lock(root)).inspect_err(|_| remove(&folders))?;
        let [files, aside] = [(); 2].map(|()| Vec::new());
        Ok(Self { root: root.to_owned(), _lock: lock, files, removed: Vec::new(), aside, placed: Vec::new(), folders })
    }

    /// Begins a file that will be called `path`. Its folder is made if it is not there.
    pub fn create(&mut self, path: &Path) -> Result<HashedFile, WriteError> {
        if let Some(folder) = path.parent() {
            create_folder(folder, &mut self.folders)?;
        }
        if path.is_dir() {
            return Err(failed(path)(io::Error::new(io::ErrorKind::IsADirectory, "a folder is in the way")));
        }
        let partial = beside(path, "partial");
        remove_leftovers(path)?;
        let file = HashedFile::create(&partial)?;
        self.files.push((partial, path.to_owned()));
        Ok(file)
    }

    /// Writes a whole file that will be called `path`.
    pub fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<Written, WriteError> {
        let mut file = self.create(path)?;
        file.write(bytes)?;
        file.finish()
    }

    /// Lets the file `path` disappear, if it is there.
    pub fn remove(&mut self, path: &Path) {
        self.removed.push(path.to_owned());
    }

    /// Makes all changes. The file begun last is the first of the old ones to go and the last of the new ones to come, so that
    /// it is there only together with all others even if the machine stops half way.
    pub fn commit(mut self) -> Result<(), WriteError> {
        let old: Vec<_> = self.files.iter().map(|(_, path)| path.clone()).chain(self.removed.clone()).collect();
        for path in old.into_iter().rev() {
            let aside = beside(&path, "previous");
            match fs::rename(&path, &aside) {
                Ok(()) => self.aside.push((aside, path)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&path)(error)),
            }
        }
        while let Some((partial, path)) = self.files.first().cloned() {
            fs::rename(&partial, &path).map_err(failed(&path))?;
            self.files.remove(0);
            self.placed.push(path);
        }
        platform::sync_folder(&self.root).map_err(failed(&self.root))?;
        // From here on the new files count; what cannot be tidied up is told and left.
        self.placed.clear();
        self.folders.clear();
        for (aside, _) in std::mem::take(&mut self.aside) {
            tell(&aside, fs::remove_file(&aside));
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        for path in &self.placed {
            tell(path, fs::remove_file(path));
        }
        for (aside, path) in &self.aside {
            tell(path, fs::rename(aside, path));
        }
        for (partial, _) in &self.files {
            tell(partial, fs::remove_file(partial));
        }
        // Removed while it is still held: whoever opens it afterwards makes a new one.
        let lock = self.root.join(LOCK_NAME);
        tell(&lock, fs::remove_file(&lock));
        remove(&self.folders);
    }
}

fn lock(root: &Path) -> Result<File, WriteError> {
    let path = root.join(LOCK_NAME);
    loop {
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed(&path))?;
        match file.try_lock() {
            Ok(()) if platform::is_at(&file, &path).map_err(failed(&path))? => return Ok(file),
            // The one before has removed it since it was opened here, so that it keeps nobody out any more.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WriteError::Locked { path }),
            Err(TryLockError::Error(source)) => return Err(WriteError::Io { path, source }),
        }
    }
}

/// The name of a passing file for `path`, which no other process uses.
fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.{what}", process::id()));
    PathBuf::from(name)
}

fn create_folder(folder: &Path, created: &mut Vec<PathBuf>) -> Result<(), WriteError> {
    let missing: Vec<_> = folder.ancestors().take_while(|it| !it.as_os_str().is_empty() && !it.exists()).collect();
    for new in missing.into_iter().rev() {
        fs::create_dir(new).map_err(failed(new))?;
        created.push(new.to_owned());
    }
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    Err(failed(folder)(io::Error::new(io::ErrorKind::NotADirectory, "it is a file, and a folder is needed")))
}

/// Removes what exports that were killed have left of `path`. The lock says that none of them is running; links are removed
/// and not followed.
fn remove_leftovers(path: &Path) -> Result<(), WriteError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_leftover = |other: &str| {
        let number = other.strip_prefix(&name).and_then(|rest| rest.strip_prefix('.')?.strip_suffix(".partial"));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let entry = entry.map_err(failed(folder))?;
        if is_leftover(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path()).map_err(failed(&entry.path()))?;
        }
    }
    Ok(())
}

/// Removes new folders, the last one first. One that somebody else has put files into stays.
fn remove(folders: &[PathBuf]) {
    for folder in folders.iter().rev() {
        if let Err(error) = fs::remove_dir(folder) {
            tracing::debug!(path = %folder.display(), %error, "a new folder stays");
        }
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| WriteError::Io { path: path.clone(), source }
}

/// For what cannot be an error any more.
fn tell(path: &Path, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!("{} could not be tidied up: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_appear_only_when_committed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a");
        let path = root.join("b/c.txt");
        let mut staging = Staging::lock(&root).unwrap();
        let written = staging.write(&path, b"abc").unwrap();
        assert_eq!(written.size, 3);
        assert_eq!(written.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(!path.exists());
        drop(staging);
        assert_eq!(names(folder.path()), Vec::<String>::new(), "nothing is left, folders included");

        let mut staging = Staging::lock(&root).unwrap();
        staging.write(&path, b"abc").unwrap();
        staging.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abc");
        assert_eq!((names(&root), names(&root.join("b"))), (vec!["b".to_owned()], vec!["c.txt".to_owned()]));
    }

    #[test]
    fn an_existing_file_stays_until_it_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let [kept, gone] = ["kept", "gone"].map(|name| folder.path().join(name));
        fs::write(&kept, "old").unwrap();
        fs::write(&gone, "old").unwrap();
        let mut staging = Staging::lock(folder.path()).unwrap();
        staging.create(&kept).unwrap().write(b"half").unwrap();
        staging.remove(&gone);
        drop(staging);
        assert_eq!(
            (fs::read_to_string(&kept).unwrap(), fs::read_to_string(&gone).unwrap()),
            ("old".into(), "old".into())
        );

        let mut staging = Staging::lock(folder.path()).unwrap();
        staging.write(&kept, b"new").unwrap();
        staging.remove(&gone);
        staging.remove(&folder.path().join("never there"));
        staging.commit().unwrap();
        assert_eq!(fs::read_to_string(&kept).unwrap(), "new");
        assert_eq!(names(folder.path()), ["kept"]);
    }

    #[test]
    fn a_failing_commit_undoes_everything() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
        fs::write(&first, "old").unwrap();
        let mut staging = Staging::lock(folder.path()).unwrap();
        staging.write(&first, b"new").unwrap();
        staging.write(&second, b"new").unwrap();
        // The second file cannot be put into its place any more: it has been taken away.
        fs::remove_file(beside(&second, "partial")).unwrap();
        staging.commit().unwrap_err();
        assert_eq!(fs::read_to_string(&first).unwrap(), "old");
        assert_eq!(names(folder.path()), ["first"]);
    }

    #[test]
    fn a_folder_in_the_way_is_told_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::create_dir(&path).unwrap();
        let error = Staging::lock(folder.path()).unwrap().create(&path).err().unwrap();
        assert!(error.to_string().contains("a folder is in the way"), "{error}");
        assert!(Staging::lock(&folder.path().join("file")).is_ok());
        fs::write(folder.path().join("file"), "").unwrap();
        let error = Staging::lock(&folder.path().join("file")).unwrap_err();
        assert!(error.to_string().contains("a folder is needed"), "{error}");
    }

    #[test]
    fn only_one_may_write() {
        let folder = tempfile::tempdir().unwrap();
        let first = Staging::lock(folder.path()).unwrap();
        assert!(matches!(Staging::lock(folder.path()), Err(WriteError::Locked { .. })));
        drop(first);
        Staging::lock(folder.path()).unwrap();
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn what_killed_exports_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.onnx");
        for name in ["x.onnx.1.partial", "x.onnx.partial", "x.onnx.a1.partial", "y.onnx.1.partial"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let mut staging = Staging::lock(folder.path()).unwrap();
        staging.write(&path, b"new").unwrap();
        staging.commit().unwrap();
        assert_eq!(names(folder.path()), ["x.onnx", "x.onnx.a1.partial", "x.onnx.partial", "y.onnx.1.partial"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let [path, precious] = ["x", "precious"].map(|name| folder.path().join(name));
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, beside(&path, "partial")).unwrap();
        let mut staging = Staging::lock(folder.path()).unwrap();
        staging.write(&path, b"new").unwrap();
        staging.commit().unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }
}
