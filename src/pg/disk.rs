//! Room on a filesystem, and whether a page is what was written.

use pg_fork_core::types::Page;
use pgrx::pg_sys;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes that are free for the server, and bytes in all.
pub fn room(path: &Path) -> io::Result<(u64, u64)> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a C string, and room for the answer.
    unsafe {
        let mut found = std::mem::zeroed::<libc::statvfs>();
        if libc::statvfs(path.as_ptr(), &mut found) != 0 {
            return Err(io::Error::last_os_error());
        }
        let size = found.f_frsize;
        Ok((found.f_bavail * size, found.f_blocks * size))
    }
}

/// Asks ext4 to spread a folder's folders over the disk (`chattr +T`). Without a journal it looks at each
/// inode of a group that was freed in the last minute or more before it takes another; in a group of its
/// own a new folder finds none. Other filesystems do not know the flag, and do not need it.
pub fn spread(path: &Path) {
    const FS_TOPDIR_FL: libc::c_int = 0x0002_0000; // linux/fs.h
    let Ok(folder) = File::open(path) else { return };
    let mut flags: libc::c_int = 0;
    // SAFETY: an open descriptor, and an int each, which is what the calls take whatever their numbers
    // say; the worst of a flag that is not set is time.
    unsafe {
        if libc::ioctl(folder.as_raw_fd(), libc::FS_IOC_GETFLAGS as _, &mut flags) == 0 {
            flags |= FS_TOPDIR_FL;
            libc::ioctl(folder.as_raw_fd(), libc::FS_IOC_SETFLAGS as _, &flags);
        }
    }
}

/// Asks for a part of a file to be read ahead, as fd.c's `FilePrefetch` does.
pub fn will_need(file: &File, offset: u64, len: u64) -> io::Result<()> {
    // SAFETY: an open descriptor; the call only gives advice.
    let code = unsafe {
        let advice = libc::POSIX_FADV_WILLNEED;
        libc::posix_fadvise(file.as_raw_fd(), offset as i64, len as i64, advice)
    };
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Asks for a part of a file to be written out, as fd.c's `pg_flush_data` does, which ends the server where that
/// fails. A filesystem that cannot do it leaves it to the sync.
pub fn write_back(file: &File, offset: u64, len: u64) -> io::Result<()> {
    // SAFETY: an open descriptor.
    let failed = unsafe {
        let flags = libc::SYNC_FILE_RANGE_WRITE;
        libc::sync_file_range(file.as_raw_fd(), offset as i64, len as i64, flags) != 0
    };
    match io::Error::last_os_error() {
        error if failed && error.raw_os_error() != Some(libc::ENOSYS) => Err(error),
        _ => Ok(()),
    }
}

/// Gives a part of a file back to the filesystem, where that can do it: it reads as zeros then.
pub fn give_back(file: &File, offset: u64, len: u64) -> io::Result<()> {
    // SAFETY: an open descriptor.
    let failed = unsafe {
        let flags = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        libc::fallocate(file.as_raw_fd(), flags, offset as i64, len as i64) != 0
    };
    match io::Error::last_os_error() {
        error if failed && error.raw_os_error() != Some(libc::EOPNOTSUPP) => Err(error),
        _ => Ok(()),
    }
}

/// Copies a part of a file to the same place of another: where the filesystem can do it, without moving the bytes.
/// An error (`UnexpectedEof`) if the file is shorter.
pub fn copy(from: &File, to: &File, offset: u64, len: u64) -> io::Result<()> {
    let (mut at, end) = (offset, offset + len);
    while at < end {
        let (mut source, mut target) = (at as i64, at as i64);
        // SAFETY: two open descriptors, and the offsets' own variables.
        let copied = unsafe {
            let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
            libc::copy_file_range(from, &mut source, to, &mut target, (end - at) as usize, 0)
        };
        match copied {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            1.. => at += copied as u64,
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error if error.raw_os_error() == Some(libc::ENOSPC) => return Err(error),
                // Not between these files, or not on this system.
                _ => return copy_bytes(from, to, at, end - at),
            },
        }
    }
    Ok(())
}

fn copy_bytes(from: &File, to: &File, offset: u64, len: u64) -> io::Result<()> {
    const PIECE: u64 = 1 << 20;
    let mut bytes = vec![0; len.min(PIECE) as usize];
    let (mut at, end) = (offset, offset + len);
    while at < end {
        let piece = (end - at).min(PIECE) as usize;
        from.read_exact_at(&mut bytes[..piece], at)?;
        to.write_all_at(&bytes[..piece], at)?;
        at += piece as u64;
    }
    Ok(())
}

/// Whether the page's header is sane, and its checksum right if there are checksums (bufpage.c).
pub fn is_verified(page: &Page, block: u32) -> bool {
    // The function wants a page that is aligned as a buffer is.
    let mut copy = vec![0u64; page.len() / 8];
    for (word, bytes) in copy.iter_mut().zip(page.chunks_exact(8)) {
        *word = u64::from_ne_bytes([
            bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
        ]);
    }
    // SAFETY: a whole page.
    unsafe { pg_sys::PageIsVerifiedExtended(copy.as_mut_ptr().cast(), block, 0) }
}
