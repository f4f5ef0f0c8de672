//! The io controller: how many bytes a second a group may read from and write to a disk.

use super::{Error, read, write};
use std::path::{Path, PathBuf};

/// A block device as the kernel numbers it: whole disks only, it limits no partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Disk {
    major: u32,
    minor: u32,
}

/// Where the kernel lists block devices by number.
const DEVICES: &str = "/sys/dev/block";

/// Limits what the group reads from and writes to the disk, each in bytes a second; `None`:
/// without limit. What is written through the page cache counts when the kernel writes it back,
/// on file systems that say whose it is (ext4, btrfs, xfs; cgroup-v2.rst, "Writeback").
///
/// # Errors
/// When the kernel does not keep what is written.
pub fn limit(
    dir: &Path,
    disk: Disk,
    read_max: Option<u64>,
    write_max: Option<u64>,
) -> Result<(), Error> {
    let file = "io.max";
    let text = |max: Option<u64>| max.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string());
    let value =
        format!("{}:{} rbps={} wbps={}", disk.major, disk.minor, text(read_max), text(write_max));
    write(dir, file, &value)?;
    // It has a line per disk and names more than was written.
    let kept = read(dir, file)?;
    if kept.lines().any(|line| line.starts_with(&value)) {
        return Ok(());
    }
    Err(Error::NotKept { dir: dir.to_owned(), file, value, kept })
}

/// The disk that a file or folder lies on.
///
/// # Errors
/// A sentence without full stop: it does not exist, or lies on nothing that the kernel can limit,
/// such as a tmpfs, an overlay or a network file system.
pub fn disk_of(path: &Path) -> Result<Disk, String> {
    use std::os::unix::fs::MetadataExt;
    let shown = path.display();
    let facts = std::fs::metadata(path).map_err(|error| format!("{shown}: {error}"))?;
    let device = facts.dev();
    let disk = Disk { major: rustix::fs::major(device), minor: rustix::fs::minor(device) };
    whole(Path::new(DEVICES), disk)
        .ok_or_else(|| format!("{shown} lies on no disk whose use the kernel can limit"))
}

/// The disk of a partition, or the disk itself.
fn whole(devices: &Path, disk: Disk) -> Option<Disk> {
    let dir = std::fs::canonicalize(devices.join(format!("{}:{}", disk.major, disk.minor))).ok()?;
    let dir: PathBuf = if dir.join("partition").exists() { dir.parent()?.to_owned() } else { dir };
    let numbers = std::fs::read_to_string(dir.join("dev")).ok()?;
    let (major, minor) = numbers.trim().split_once(':')?;
    Some(Disk { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fake, text};
    use super::*;

    const DISK: Disk = Disk { major: 8, minor: 16 };

    #[test]
    fn reading_and_writing_are_limited_apart() {
        let dir = fake(&[("io.max", "")]);
        limit(dir.path(), DISK, Some(1 << 20), None).expect("it can be written");
        assert_eq!(text(dir.path(), "io.max"), "8:16 rbps=1048576 wbps=max");
        limit(dir.path(), DISK, None, Some(5)).expect("it can be written");
        assert_eq!(text(dir.path(), "io.max"), "8:16 rbps=max wbps=5");
        let error = limit(fake(&[]).path(), DISK, None, Some(5)).expect_err("no controller");
        assert!(error.to_string().contains("io.max = 8:16 rbps=max wbps=5"), "{error}");
    }

    #[test]
    fn a_limit_that_is_not_kept_is_told() {
        let dir = fake(&[]);
        std::os::unix::fs::symlink("/dev/null", dir.path().join("io.max")).expect("a link");
        let error = limit(dir.path(), DISK, Some(9), None).expect_err("nothing is kept");
        assert!(matches!(error, Error::NotKept { .. }), "{error}");
    }

    #[test]
    fn a_partition_is_on_its_disk() {
        let dir = fake(&[]);
        let make = |path: &str, numbers: &str| {
            let device = dir.path().join(path);
            std::fs::create_dir_all(&device).expect("ours");
            std::fs::write(device.join("dev"), numbers).expect("ours");
            let name = dir.path().join(numbers.trim());
            std::os::unix::fs::symlink(&device, name).expect("a link");
            device
        };
        make("devices/sdb", "8:16\n");
        let part = make("devices/sdb/sdb1", "8:17\n");
        std::fs::write(part.join("partition"), "1\n").expect("ours");
        let of = |major, minor| whole(dir.path(), Disk { major, minor });
        assert_eq!((of(8, 17), of(8, 16), of(0, 40)), (Some(DISK), Some(DISK), None));
    }

    #[test]
    fn what_lies_on_no_disk_is_told() {
        let error = disk_of(Path::new("/proc")).expect_err("it lies on none");
        assert_eq!(error, "/proc lies on no disk whose use the kernel can limit");
        let error = disk_of(Path::new("/nonexistent/x")).expect_err("it is not there");
        assert!(error.starts_with("/nonexistent/x: No such file"), "{error}");
    }
}
