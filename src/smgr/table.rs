//! Finds `smgrsw[]` in the running server and puts our functions in (D3).
//!
//! `smgr.c` has no hook, but all block I/O goes through this table of function pointers. It lies
//! in the main program's read-only-after-relocation segment, and the functions in it are exported,
//! so it can be found by its content.
#![allow(unsafe_code)] // reads and writes the program's own memory, once, in the postmaster

use crate::pg::md::{self, FSmgr, SLOTS};
use std::ffi::c_int;

/// Why the hook was not put in: what was looked for and what was found.
#[derive(Debug)]
pub struct NotHooked(pub String);

struct Segments(Vec<(usize, usize)>);

unsafe extern "C" fn note_relro(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    data: *mut libc::c_void,
) -> c_int {
    // SAFETY: the arguments are what dl_iterate_phdr passes; the first call is for the main program.
    unsafe {
        let segments = &mut *data.cast::<Segments>();
        for n in 0..usize::from((*info).dlpi_phnum) {
            let header = &*(*info).dlpi_phdr.add(n);
            if header.p_type == libc::PT_GNU_RELRO {
                segments.0.push((
                    (*info).dlpi_addr as usize + header.p_vaddr as usize,
                    header.p_memsz as usize,
                ));
            }
        }
    }
    1
}

/// Finds the one place with exactly these pointers.
fn find<const N: usize>(wanted: [usize; N], what: &str) -> Result<usize, NotHooked> {
    let mut segments = Segments(Vec::new());
    // SAFETY: the callback gets our own vector.
    unsafe { libc::dl_iterate_phdr(Some(note_relro), (&raw mut segments).cast()) };
    let mut matches = Vec::new();
    for (start, len) in &segments.0 {
        let first = start.next_multiple_of(size_of::<usize>());
        let words = (start + len - first) / size_of::<usize>();
        // SAFETY: the segment is mapped and readable in whole.
        let memory = unsafe { std::slice::from_raw_parts(first as *const usize, words) };
        matches.extend(
            memory
                .windows(N)
                .enumerate()
                .filter(|(_, window)| *window == wanted)
                .map(|(at, _)| first + at * 8),
        );
    }
    match matches.as_slice() {
        [one] => Ok(*one),
        found => Err(NotHooked(format!(
            "Looked in {} read-only segment(s) of the server program for one run of {N} pointers, {what}; found {}.",
            segments.0.len(),
            found.len()
        ))),
    }
}

/// Makes the memory at `address` writable, changes it, and protects it again.
///
/// # Safety
/// `address` points to `size_of::<T>()` bytes of this program's own data, and no other thread runs.
pub unsafe fn overwrite<T>(address: *mut T, value: T) -> Result<(), NotHooked> {
    // SAFETY: by the caller's promise; pages are protected again before we return.
    unsafe {
        let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
        let start = address as usize / page * page;
        let len = (address as usize + size_of::<T>()).next_multiple_of(page) - start;
        let failed = |what| NotHooked(format!("{what}: {}", std::io::Error::last_os_error()));
        if libc::mprotect(start as *mut _, len, libc::PROT_READ | libc::PROT_WRITE) != 0 {
            return Err(failed("could not make the table writable"));
        }
        address.write(value);
        if libc::mprotect(start as *mut _, len, libc::PROT_READ) != 0 {
            return Err(failed("could not protect the table again"));
        }
    }
    Ok(())
}

/// Puts `ours` into the table. In the postmaster, once, from `_PG_init`.
pub fn install(ours: FSmgr) -> Result<(), NotHooked> {
    // SAFETY: both are 15 words, and all bit patterns of words are valid.
    let wanted: [usize; SLOTS] = unsafe { std::mem::transmute(md::stock()) };
    let table = find(wanted, "md.c's functions in the order of f_smgr")? as *mut FSmgr;
    // SAFETY: `find` proved what the memory is; the postmaster has one thread while it preloads.
    unsafe { overwrite(table, ours)? };
    // SAFETY: as above; reads back through the table what calls will go through.
    let after: [usize; SLOTS] = unsafe { std::mem::transmute(table.read_volatile()) };
    // SAFETY: words again.
    let wanted: [usize; SLOTS] = unsafe { std::mem::transmute(ours) };
    if after != wanted {
        return Err(NotHooked(
            "The table does not hold what was written to it.".into(),
        ));
    }
    Ok(())
}

/// The checkpointer's way to sync a file (sync.c, `SyncOps`).
pub type SyncFile =
    unsafe extern "C-unwind" fn(*const pgrx::pg_sys::FileTag, *mut std::ffi::c_char) -> c_int;

/// Puts `ours` into md's entry of `syncsw[]`. In the postmaster, once, from `_PG_init`.
pub fn install_sync(ours: SyncFile) -> Result<(), NotHooked> {
    use crate::hooks::sync::{mdfiletagmatches, mdsyncfiletag, mdunlinkfiletag};
    let wanted = [
        mdsyncfiletag as *const () as usize,
        mdunlinkfiletag as *const () as usize,
        mdfiletagmatches as *const () as usize,
    ];
    let entry = find(wanted, "md.c's functions in the order of SyncOps")? as *mut SyncFile;
    // SAFETY: `find` proved what the memory is; the postmaster has one thread while it preloads.
    unsafe { overwrite(entry, ours) }
}
